"""Which instances a training batch holds: the same whenever it is asked for, so a resumed run sees what it would have.

Source of the policy for the end of an epoch: the code of Shafahi et al. 2019, which shuffles anew when what is left
does not fill a batch, so that every batch is full.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from service.errors import InputError


def permutation(count: int, seed: int) -> Tensor:
    """The integers 0..count-1 in an order that depends on the seed alone. Returns int64 (count,)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


class Epochs:
    """A fixed set gone through again and again, each epoch in an order of its own; a short last batch is left out."""

    def __init__(self, count: int, batch: int, seed: Callable[[int], int]) -> None:
        """count: instances in the set. seed: of an epoch, counted from 0. InputError if they do not fill one batch."""
        if not 1 <= batch <= count:
            raise InputError(f"a training set of {count} instances does not fill one batch of {batch}")
        self.steps = count // batch
        """batches in an epoch"""
        self._count, self._batch, self._seed = count, batch, seed
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))

    def indices(self, step: int) -> Tensor:
        """The instances of batch number `step`, counted from 0 over all epochs. Returns int64 (batch,)."""
        epoch, index = divmod(step, self.steps)
        if self._order[0] != epoch:
            self._order = epoch, permutation(self._count, self._seed(epoch))
        return self._order[1][index * self._batch : (index + 1) * self._batch]
