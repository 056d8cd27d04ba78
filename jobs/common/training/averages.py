"""Averages over training, of what each update reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.training import parallel


@dataclass(frozen=True)
class Term:
    """What one pass over some rows adds to an average."""

    total: Tensor
    """a scalar, without gradient: of these rows alone"""
    weight: float
    """of all rows of the update, those of other passes and ranks with them"""


class Averages:
    """Weighted means since the last report. Sums stay on the device in float64: only reading them waits for it."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, passes: Sequence[Mapping[str, Term]]) -> None:
        """Add an update: what each of its passes reported, all under the same names."""
        for name, last in passes[-1].items():
            update = sum((each[name].total.double() for each in passes[1:]), passes[0][name].total.double())
            self._totals[name] = self._totals[name] + update if name in self._totals else update
            self._weights[name] = self._weights.get(name, 0) + last.weight

    def read(self) -> dict[str, float]:
        """The means over all ranks, by name. The next ones begin at nothing."""
        if not self._totals:
            return {}
        totals = parallel.total(torch.stack(list(self._totals.values()))).tolist()
        means = {name: total / self._weights[name] for name, total in zip(self._totals, totals, strict=True)}
        self._totals, self._weights = {}, {}
        return means
