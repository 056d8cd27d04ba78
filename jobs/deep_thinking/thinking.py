"""Thinking at test time: the answer after every iteration, one at a time, and the rules that say when to stop.

Memory does not grow with the number of iterations: what is kept is one set of features and the newest answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.problems.base import Problem

ConfidenceRule = Literal["exact", "released"]


@dataclass(frozen=True)
class Thought:
    """The answers of a batch after an iteration."""

    iteration: int
    """counted from 1"""
    prediction: Tensor
    """int64 (batch, *space); 0 at positions that do not count"""
    confidence: Tensor
    """float32 (batch,): the larger of the two class probabilities, its mean over the counted positions, in [0.5, 1]"""
    doubt: Tensor
    """float64 (batch,): the logarithm of 1 - confidence, in which confidences that float32 rounds to 1 differ; 0 where
    nobody asks for it"""
    finite: Tensor
    """bool (batch,): False once an instance's features have overflowed; its answer is then the last one before that"""


def think(
    network: Thinker, problem: Problem, inputs: Tensor, iterations: int, *, first: int = 1, doubts: bool = True
) -> Iterator[Thought]:
    """Think about a batch and yield the answers after iterations `first` to `iterations`.

    Whoever stops iterating stops the thinking. inputs: (batch, channels, *space). Iterations before `first` are not
    read out, which saves the head's work. doubts: whether the doubt is asked for, as exit rules do.
    """
    # entered anew for each iteration: a generator must not leave the mode switched on for its caller
    with torch.inference_mode():
        counted = problem.counted(inputs)
        positions = positions_of(counted)
        finite = torch.ones(inputs.shape[0], dtype=torch.bool, device=inputs.device)
        prediction = torch.zeros_like(counted, dtype=torch.int64)
        confidence = torch.zeros(inputs.shape[0], device=inputs.device)
        doubt = torch.zeros(inputs.shape[0], dtype=torch.float64, device=inputs.device)
        features = network.start(inputs)
    for iteration in range(1, iterations + 1):
        with torch.inference_mode():
            features = network.step(features, inputs, iteration - 1)
            if iteration < first:
                continue
            read = read_out(network.answer(features), counted, positions)
            finite = finite & read.finite
            if doubts:
                lacking = functional.logsigmoid(-read.margin.double()).masked_fill(~counted, -torch.inf).flatten(1)
                doubt = torch.where(finite, lacking.logsumexp(1) - positions.log(), doubt)
            kept = finite.view(-1, *[1] * (counted.dim() - 1))
            prediction = torch.where(kept, read.prediction, prediction)
            confidence = torch.where(finite, read.confidence, confidence)
        yield Thought(iteration, prediction, confidence, doubt, finite)


@dataclass(frozen=True)
class ReadOut:
    """What the logits of a batch say, of whatever is finite: as in a thought."""

    prediction: Tensor
    confidence: Tensor
    margin: Tensor
    """float32 (batch, *space): how far the logits of the two classes are apart"""
    finite: Tensor


def positions_of(counted: Tensor) -> Tensor:
    """How many positions are counted, at least 1: int64 (batch,)."""
    return counted.flatten(1).sum(1).clamp(min=1)


def read_out(logits: Tensor, counted: Tensor, positions: Tensor) -> ReadOut:
    """logits: (batch, 2, *space). counted: bool (batch, *space). positions: how many are."""
    zero, one = logits.unbind(1)
    towards_one = one - zero
    margin = towards_one.abs()
    return ReadOut(
        ((towards_one > 0) & counted).long(),
        (margin.sigmoid() * counted).flatten(1).sum(1) / positions,
        margin,
        logits.flatten(1).abs().amax(1) < torch.inf,  # of NaN as well the largest is NaN
    )


def read_out_last(logits: Tensor, counted: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Prediction and confidence as of `read_out`, where nothing else is asked for; None if a logit is not finite.

    In numpy: for the few numbers of most requests torch would take as long as the network. logits: (batch, 2, *space).
    counted: bool (batch, *space). Returns int64 (batch, *space) and float32 (batch,).
    """
    values, mask = logits.numpy(force=True), counted.numpy(force=True)
    if not np.isfinite(values).all():
        return None
    space = tuple(range(1, mask.ndim))
    with np.errstate(over="ignore"):  # to infinity, which is as sure as can be
        towards_one = values[:, 1] - values[:, 0]
    larger = 1 / (1 + np.exp(-np.abs(towards_one)))  # of the two probabilities
    confidence = (larger * mask).sum(space) / np.maximum(mask.sum(space), 1)
    return ((towards_one > 0) & mask).astype(np.int64), confidence.astype(np.float32)


class MostConfident:
    """Exit rule: the answer with the highest confidence so far (Schwarzschild et al. 2021).

    exact: by the doubt, in which answers are never equally confident unless their logits are; then the first is held.
    released: as the released code, by the confidence in float32, which is 1 for all that are nearly sure; of equals the
    last is held, so that a network that goes on being sure is judged by its newest answer.
    """

    def __init__(self, rule: ConfidenceRule = "exact") -> None:
        self.rule = rule
        self.iteration: Tensor | None = None  # int64 (batch,): where the answer that is held comes from
        self.prediction: Tensor | None = None
        self.confidence: Tensor | None = None
        self._doubt: Tensor | None = None

    def see(self, thought: Thought) -> Tensor:
        """Take in an iteration. Returns bool (batch,): whose answer is now this iteration's."""
        if self.prediction is None or self.confidence is None or self._doubt is None or self.iteration is None:
            self.prediction, self.confidence, self._doubt = thought.prediction, thought.confidence, thought.doubt
            self.iteration = torch.full_like(thought.finite, thought.iteration, dtype=torch.int64)
            return torch.ones_like(thought.finite)
        surer = thought.doubt < self._doubt if self.rule == "exact" else thought.confidence >= self.confidence
        better = surer & thought.finite
        wide = better.view(-1, *[1] * (thought.prediction.dim() - 1))
        self.prediction = torch.where(wide, thought.prediction, self.prediction)
        self.confidence = torch.where(better, thought.confidence, self.confidence)
        self._doubt = torch.where(better, thought.doubt, self._doubt)
        self.iteration = torch.where(better, thought.iteration, self.iteration)
        return better


class Unchanged:
    """Exit rule: stop when the answer has stayed, or gone to and fro between two, for `patience` iterations.

    The features of trained networks often end in a cycle of two (Knutson et al. 2026, "On Logical Extrapolation for
    Mazes"), so a rule that waits for a fixed point would wait for ever. Of a cycle the more confident answer is held.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.iteration: Tensor | None = None  # int64 (batch,): where an instance stopped; the newest while it thinks on
        self.prediction: Tensor | None = None
        self.confidence: Tensor | None = None
        self.settled: Tensor | None = None  # bool (batch,)
        self._history: list[Thought] = []  # the two thoughts before this one
        self._streak: Tensor | None = None  # how long u_t = u_{t-1} or u_t = u_{t-2} has held

    def see(self, thought: Thought) -> Tensor:
        """Take in an iteration. Returns bool (batch,): which instances have settled."""
        if self.settled is None or self._streak is None or self.prediction is None or self.confidence is None:
            self._streak = torch.zeros_like(thought.finite, dtype=torch.int64)
            self.settled = torch.zeros_like(thought.finite)
            self.prediction, self.confidence = thought.prediction, thought.confidence
            self.iteration = torch.full_like(self._streak, thought.iteration)
            self._history = [thought]
            return self.settled
        repeated = torch.zeros_like(thought.finite)
        for earlier in self._history:
            repeated = repeated | (thought.prediction == earlier.prediction).flatten(1).all(1)
        self._streak = torch.where(repeated, self._streak + 1, 0)
        going = ~self.settled
        # of the last two answers the more confident one: they are the same unless it is a cycle
        last = self._history[-1]
        hold_last = (self._streak >= self.patience) & (last.doubt < thought.doubt)
        wide = [-1, *[1] * (thought.prediction.dim() - 1)]
        answer = torch.where(hold_last.view(wide), last.prediction, thought.prediction)
        sure = torch.where(hold_last, last.confidence, thought.confidence)
        self.prediction = torch.where(going.view(wide), answer, self.prediction)
        self.confidence = torch.where(going, sure, self.confidence)
        assert self.iteration is not None
        self.iteration = torch.where(going, thought.iteration, self.iteration)
        self.settled = self.settled | (self._streak >= self.patience)
        self._history = [last, thought]
        return self.settled
