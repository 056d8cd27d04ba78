"""Evaluation on larger instances and with more iterations than in training, in memory that neither of them fills.

An instance counts as right only if every position is right. What is kept is a few numbers per iteration; the answers
themselves are streamed (see `thinking`). Sources: Bansal et al. 2022, section 4; Schwarzschild et al. 2021, section 4.
"""

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from jobs.common.params import ONCE, StudyParams
from jobs.common.training.optimizers import device_of
from jobs.deep_thinking.data import Instances, batches
from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.problems.base import Problem
from jobs.deep_thinking.thinking import ConfidenceRule, MostConfident, Unchanged, think
from service.errors import FieldError

LOOK_AHEAD = 4  # stability is measured from m to this many times m iterations


class Difficulty(StudyParams):
    """One difficulty."""

    size: int = Field(ge=1, description="size of the instances, in the units of the problem")
    iterations: int = Field(100, ge=1, le=1_000_000, description="iterations of thought")
    instances: int = Field(200, ge=1, le=1_000_000, description="instances of this size")


class EvaluationParams(StudyParams):
    """What the trained network is tested on."""

    sizes: Annotated[tuple[Difficulty, ...], ONCE] = Field(
        min_length=1, description="difficulties, usually beyond the training size"
    )
    batch: int = Field(
        100,
        ge=1,
        le=100_000,
        description="instances thought about at once: bounds the memory; with settle results depend on it",
    )
    confidence: ConfidenceRule = Field(
        "exact",
        description="how the exit rule by confidence compares answers: exact, in logarithms, where none are equal, and "
        "by_confidence is of the surest; released, as the released code in float32, where all that are nearly sure are "
        "equal, and by_confidence is of the last of these",
    )
    patience: int = Field(5, ge=1, le=1000, description="the exit rule `unchanged` waits for so many same answers")
    settle: int | None = Field(
        None,
        ge=2,
        description="leave off a batch when no answer has changed (a cycle of two aside) for so many iterations, and "
        "take the rest as unchanged; none: compute every iteration",
    )
    show: Difficulty | None = Field(
        None,
        description="draw an instance of this size being solved: of so many the first that the network solves; none: "
        "draw none",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.settle is not None and self.confidence == "released":
            raise FieldError("settle", "be empty with confidence: released, whose answer goes on changing", self.settle)
        return self

    @field_validator("sizes")
    @classmethod
    def _distinct(cls, sizes: tuple[Difficulty, ...]) -> tuple[Difficulty, ...]:
        """Metrics are named after the sizes."""
        if len({each.size for each in sizes}) < len(sizes):
            raise FieldError("", "name each size once", [each.size for each in sizes])
        return sizes


@dataclass(frozen=True)
class Evaluation:
    """What was measured on the instances of one size. Accuracies are shares of exactly right instances in [0, 1]."""

    size: int
    trained_iterations: int
    accuracy: np.ndarray
    """(iterations,): of the answers after 1, 2, … iterations"""
    accuracy_by_confidence: np.ndarray
    """(iterations,): of the most confident answers among those after 1, …, T iterations"""
    confident_iteration: float
    """mean iteration of the most confident answer"""
    confidence: ConfidenceRule
    """how answers were compared for these two"""
    settled_accuracy: float
    """of the answers at which the rule `unchanged` stops; the last ones where it never does"""
    settled_iteration: float
    """mean iteration at which that rule stops"""
    verifier_agreement: float
    """share of answers (the last, and by each exit rule) on which the exact verifier agrees with the truth"""
    finite: float
    """share of instances whose features never overflowed"""

    @property
    def peak(self) -> float:
        """The highest accuracy at any iteration. Chosen with the truth in view, as in the papers."""
        return float(self.accuracy.max())

    @property
    def peak_iteration(self) -> int:
        return int(self.accuracy.argmax()) + 1

    @property
    def at_trained(self) -> float:
        """Accuracy after the iterations of training, or the last if there are fewer."""
        return float(self.accuracy[: self.trained_iterations][-1])

    @property
    def last(self) -> float:
        return float(self.accuracy[-1])

    @property
    def overthinking(self) -> float:
        """What is lost by thinking on after the peak."""
        return self.peak - self.last

    @property
    def stability(self) -> float:
        """Mean accuracy from the iterations of training onwards."""
        return float(self.accuracy[self.trained_iterations - 1 :].mean() if self._goes_on else self.last)

    @property
    def _goes_on(self) -> bool:
        return len(self.accuracy) >= self.trained_iterations

    def summary(self) -> dict[str, float | str]:
        """The numbers that a table has of it."""
        return {
            "size": self.size,
            "iterations": len(self.accuracy),
            "at_trained": self.at_trained,
            "peak": self.peak,
            "peak_iteration": self.peak_iteration,
            "last": self.last,
            "overthinking": self.overthinking,
            "by_confidence": float(self.accuracy_by_confidence[-1]),
            "confident_iteration": self.confident_iteration,
            "confidence": self.confidence,
            "when_unchanged": self.settled_accuracy,
            "unchanged_iteration": self.settled_iteration,
            "verifier_agreement": self.verifier_agreement,
            "finite": self.finite,
        }


def evaluate(
    network: Thinker,
    problem: Problem,
    instances: Instances,
    size: int,
    iterations: int,
    trained_iterations: int,
    params: EvaluationParams,
) -> Evaluation:
    """Think about all instances and count.

    instances: inputs (count, channels, *space) and targets (count, *space). A network with an end to its iterations
    (feed-forward) is evaluated up to there.
    """
    longest = getattr(network, "max_iterations", None)
    iterations = min(iterations, longest) if longest is not None else iterations
    right = torch.zeros(iterations, dtype=torch.int64)
    right_by_confidence = torch.zeros(iterations, dtype=torch.int64)
    totals = dict.fromkeys(("confident", "settled_right", "settled", "agreed", "finite"), 0)
    for inputs, targets in batches(instances, params.batch, device_of(network)):
        confident, unchanged = MostConfident(params.confidence), Unchanged(params.patience)
        steady = Unchanged(params.settle or 1)
        recent: list[int] = []
        confident_right = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        for thought in think(network, problem, inputs, iterations):
            now_right = _same(thought.prediction, targets)
            better = confident.see(thought)
            confident_right = torch.where(better, now_right, confident_right)
            unchanged.see(thought)
            recent = [*recent[-1:], int(now_right.sum())]
            right[thought.iteration - 1] += recent[-1]
            right_by_confidence[thought.iteration - 1] += int(confident_right.sum())
            if params.settle is not None and steady.see(thought).all():
                break
        # where a batch was left off its answers stay, or go to and fro between two
        for ahead, iteration in enumerate(range(thought.iteration, iterations)):
            right[iteration] += recent[ahead % 2] if len(recent) == 2 else recent[0]
            right_by_confidence[iteration] += int(confident_right.sum())

        assert confident.prediction is not None and confident.iteration is not None
        assert unchanged.prediction is not None and unchanged.iteration is not None
        totals["confident"] += int(confident.iteration.sum())
        totals["settled"] += int(unchanged.iteration.sum())
        totals["settled_right"] += int(_same(unchanged.prediction, targets).sum())
        totals["finite"] += int(thought.finite.sum())
        for answer in (confident.prediction, unchanged.prediction, thought.prediction):
            totals["agreed"] += int((problem.verify(inputs, answer) == _same(answer, targets)).sum())

    count = len(instances[0])
    return Evaluation(
        size=size,
        trained_iterations=trained_iterations,
        accuracy=right.numpy() / count,
        accuracy_by_confidence=right_by_confidence.numpy() / count,
        confident_iteration=totals["confident"] / count,
        confidence=params.confidence,
        settled_accuracy=totals["settled_right"] / count,
        settled_iteration=totals["settled"] / count,
        verifier_agreement=totals["agreed"] / (3 * count),
        finite=totals["finite"] / count,
    )


def _same(answers: Tensor, targets: Tensor) -> Tensor:
    """Which instances are answered exactly: bool (batch,). Both are 0 at positions that do not count."""
    return (answers == targets).flatten(1).all(1)


def first_solved(network: Thinker, problem: Problem, inputs: Tensor, iterations: int) -> int | None:
    """Which of the instances is the first whose last answer the verifier finds right; None if none is.

    inputs: (count, channels, *space).
    """
    longest = getattr(network, "max_iterations", None)
    iterations = iterations if longest is None else min(iterations, longest)
    for index in range(len(inputs)):
        instance = inputs[index : index + 1].to(device_of(network))
        (last,) = think(network, problem, instance, iterations, first=iterations)
        if bool(problem.verify(instance, last.prediction)):
            return index
    return None


def answers_of_one(network: Thinker, problem: Problem, inputs: Tensor, iterations: int) -> dict[int, Tensor]:
    """The answers to one instance at those iterations at which the answer became another one, and at the last.

    inputs: (1, channels, *space). Returns iteration -> int64 (*space), ascending.
    """
    longest = getattr(network, "max_iterations", None)
    answers: dict[int, Tensor] = {}
    newest: Tensor | None = None
    iterations = iterations if longest is None else min(iterations, longest)
    for thought in think(network, problem, inputs.to(device_of(network)), iterations):
        if newest is None or not torch.equal(thought.prediction[0], newest):
            newest = answers[thought.iteration] = thought.prediction[0]
    answers[thought.iteration] = thought.prediction[0]
    return answers
