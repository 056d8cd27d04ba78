"""Where training batches come from: fresh instances at every step, or a fixed set gone through again and again.

Batch number `step` depends on the run's seed and on `step` alone, so a resumed run sees the batches it would have seen.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.data.batches import Epochs, permutation
from jobs.common.params import StudyParams
from jobs.deep_thinking.problems.base import Problem
from jobs.deep_thinking.problems.cache import cached_sample
from service.run import Run

Instances = tuple[Tensor, Tensor]  # inputs (count, channels, *space), targets (count, *space)


class Data(Protocol):
    """Instances of one size, for training and for validation."""

    steps: int
    """optimisation steps in all"""
    ticks: int
    """ticks of the learning rate's schedule in all"""
    validation: Instances
    """instances of the training size that training never sees"""

    def tick(self, step: int) -> int:
        """The tick of the schedule that a step belongs to."""

    def batch(self, step: int) -> Instances:
        """The instances of a step."""


class FreshBatches(StudyParams):
    """Every batch is made anew: nothing can be learnt by heart."""

    kind: Literal["fresh"] = Field("fresh", description="every batch is made anew")
    steps: int = Field(1000, ge=1, le=10_000_000, description="optimisation steps")
    validation: int = Field(500, ge=1, le=1_000_000, description="instances of the training size for validation")

    def open(self, problem: Problem, size: int, batch: int, run: Run) -> Data:
        """The data of a run. size: of an instance; batch: instances a step."""
        return _Fresh(self, problem, size, batch, run)


class FixedSet(StudyParams):
    """A set made once, shuffled in every epoch. A part is held out for validation; a short last batch is left out."""

    kind: Literal["fixed"] = Field("fixed", description="a set made once, gone through again and again")
    instances: int = Field(10_000, ge=2, le=10_000_000, description="instances in the set, validation included")
    epochs: int = Field(150, ge=1, le=1_000_000, description="how often training goes through its part of the set")
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the set that is held out for validation")

    def open(self, problem: Problem, size: int, batch: int, run: Run) -> Data:
        """The data of a run. InputError if the training part does not fill one batch."""
        return _Fixed(self, problem, size, batch, run)


class _Fresh:
    def __init__(self, params: FreshBatches, problem: Problem, size: int, batch: int, run: Run) -> None:
        self.steps = self.ticks = params.steps
        self.validation = cached_sample(problem, size, params.validation, run.seed_for("validation"), run.cache)
        self._problem, self._size, self._batch, self._run = problem, size, batch, run

    def tick(self, step: int) -> int:
        return step

    def batch(self, step: int) -> Instances:
        return self._problem.sample(self._size, self._batch, self._run.seed_for("batch", step))


class _Fixed:
    def __init__(self, params: FixedSet, problem: Problem, size: int, batch: int, run: Run) -> None:
        inputs, targets = cached_sample(problem, size, params.instances, run.seed_for("data"), run.cache)
        held_out = max(1, round(params.instances * params.held_out))
        order = permutation(params.instances, run.seed_for("split"))
        trained, validated = order[held_out:], order[:held_out]
        self.validation = inputs[validated], targets[validated]
        self._inputs, self._targets = inputs[trained], targets[trained]
        self._epochs = Epochs(len(trained), batch, lambda epoch: run.seed_for("order", epoch))
        self.ticks = params.epochs
        self.steps = params.epochs * self._epochs.steps

    def tick(self, step: int) -> int:
        return step // self._epochs.steps

    def batch(self, step: int) -> Instances:
        chosen = self._epochs.indices(step)
        return self._inputs[chosen], self._targets[chosen]


def batches(instances: Instances, batch: int, device: torch.device) -> Iterator[Instances]:
    """The instances in order, at most `batch` at a time, on the device."""
    inputs, targets = instances
    for first in range(0, len(inputs), batch):
        yield inputs[first : first + batch].to(device), targets[first : first + batch].to(device)
