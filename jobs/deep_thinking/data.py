"""Where training batches come from: fresh instances at every update, or a fixed set gone through again and again.

Batch number `index` depends on the run's seed and on `index` alone, so a resumed run sees the batches it would have
seen.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.data.batches import Epochs
from jobs.common.data.residence import fits
from jobs.common.data.training_data import hold_out
from jobs.common.params import StudyParams
from jobs.deep_thinking.problems.base import Problem
from jobs.deep_thinking.problems.cache import cached_sample
from service.run import Run

Instances = tuple[Tensor, Tensor]  # inputs (count, channels, *space), targets (count, *space)


class Data(Protocol):
    """Instances of one size, for training and for validation."""

    updates: int
    """weight updates in all"""
    updates_per_tick: int
    """of the learning rate's schedule"""
    validation: Instances
    """instances of the training size: held out of a fixed set, or a draw of their own beside fresh batches, which meet
    some of them too where there are few"""

    def batch(self, index: int) -> Instances:
        """The instances of a weight update, counted from 0."""


class FreshBatches(StudyParams):
    """Every batch is made anew: nothing can be learnt by heart."""

    kind: Literal["fresh"] = Field("fresh", description="every batch is made anew")
    updates: int = Field(1000, ge=0, le=10_000_000, description="weight updates; 0: the network is only tested")
    validation: int = Field(500, ge=1, le=1_000_000, description="instances of the training size for validation")

    def open(self, problem: Problem, size: int, batch: int, run: Run, home: torch.device) -> Data:
        """The data of a run. size: of an instance; batch: instances in a weight update. home: not for fresh batches."""
        return _Fresh(self, problem, size, batch, run)


class FixedSet(StudyParams):
    """A set made once, shuffled in every epoch. A part is held out for validation; a short last batch is left out."""

    kind: Literal["fixed"] = Field("fixed", description="a set made once, gone through again and again")
    instances: int = Field(10_000, ge=2, le=10_000_000, description="instances in the set, validation included")
    epochs: int = Field(150, ge=1, le=1_000_000, description="how often training goes through its part of the set")
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the set that is held out for validation")

    def open(self, problem: Problem, size: int, batch: int, run: Run, home: torch.device) -> Data:
        """The data of a run. home: where instances are kept if they fit, for batches that need not travel there.

        InputError if the training part does not fill one batch.
        """
        return _Fixed(self, problem, size, batch, run, home)


class _Fresh:
    def __init__(self, params: FreshBatches, problem: Problem, size: int, batch: int, run: Run) -> None:
        self.updates, self.updates_per_tick = params.updates, 1
        self.validation = cached_sample(problem, size, params.validation, run.seed_for("validation"), run.cache)
        self._problem, self._size, self._batch, self._run = problem, size, batch, run

    def batch(self, index: int) -> Instances:
        return self._problem.sample(self._size, self._batch, self._run.seed_for("batch", index))


class _Fixed:
    def __init__(self, params: FixedSet, problem: Problem, size: int, batch: int, run: Run, home: torch.device) -> None:
        inputs, targets = cached_sample(problem, size, params.instances, run.seed_for("data"), run.cache)
        rows = hold_out(params.instances, max(1, round(params.instances * params.held_out)), run.seed_for("split"))
        self.validation = inputs[rows.held_out], targets[rows.held_out]
        self._inputs, self._targets = inputs[rows.trained], targets[rows.trained]
        if fits(self._inputs.nbytes + self._targets.nbytes, home):
            self._inputs, self._targets = self._inputs.to(home), self._targets.to(home)
        self._epochs = Epochs(len(rows.trained), batch, lambda epoch: run.seed_for("order", epoch))
        self.updates_per_tick = self._epochs.steps
        self.updates = params.epochs * self._epochs.steps

    def batch(self, index: int) -> Instances:
        chosen = self._epochs.indices(index)
        return self._inputs[chosen], self._targets[chosen]


def batches(instances: Instances, batch: int, device: torch.device) -> Iterator[Instances]:
    """The instances in order, at most `batch` at a time, on the device."""
    inputs, targets = instances
    for first in range(0, len(inputs), batch):
        yield inputs[first : first + batch].to(device), targets[first : first + batch].to(device)
