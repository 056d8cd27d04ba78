"""How auto-PGD steps, and how it learns from the losses how far to step.

Sources: Croce & Hein 2020 ("Reliable evaluation of adversarial robustness ..."), section 3; in L1 Croce & Hein 2021
("Mind the box"), section 4. Where the code released with them says more, it is followed.
"""

from abc import abstractmethod
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from jobs.common.attacks.ball import Ball, ascent_direction
from jobs.common.attacks.base import Goal
from jobs.common.attacks.projections import TINY, broadcast

MOMENTUM_SHARE = 0.75  # of a move, what comes from the gradient
SHORTEST = 0.1  # of epsilon, in L1
SHORTER = 1.5  # what sparse steps are divided by


@dataclass
class PerSample:
    """State that has a row for each sample in every field."""

    def keep(self, keep: Tensor) -> None:
        """Drop the rows that are not kept. keep: bool (batch,)."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[keep])


@dataclass
class Climb(PerSample):
    """Where each sample is on its way up. points and gradients: (batch, channels, height, width); losses: (batch,)."""

    rows: Tensor
    goal: Goal
    aim: Goal
    images: Tensor
    points: Tensor
    previous: Tensor
    """where the last move began"""
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_losses: Tensor

    def arrive(self, points: Tensor, losses: Tensor, gradient: Tensor) -> None:
        """Move to the points, and remember those that are the best so far."""
        self.previous, self.points, self.gradient = self.points, points, gradient
        better = broadcast((losses > self.best_losses).to(points.dtype), points)
        self.best.lerp_(points, better)  # weights of 0 and 1 choose, and cost less than a mask
        self.best_gradient.lerp_(gradient, better)
        self.best_losses = torch.maximum(self.best_losses, losses)

    def go_back(self, chosen: Tensor) -> None:
        """Go on from the best points. Where the last move began stays. chosen: bool (batch,)."""
        chosen = broadcast(chosen.to(self.points.dtype), self.points)
        self.points = self.points.lerp(self.best, chosen)
        self.gradient = self.gradient.lerp(self.best_gradient, chosen)


class Steps(PerSample):
    """A rule for steps: its state."""

    @classmethod
    @abstractmethod
    def begin(cls, climb: Climb, ball: Ball, warm: bool) -> Self:
        """At the start of a climb in a ball. warm: the start says which coordinates matter."""

    @staticmethod
    @abstractmethod
    def checkpoints(steps: int) -> list[int]:
        """The steps after which lengths are looked at."""

    @abstractmethod
    def move(self, climb: Climb, ball: Ball, first: bool) -> Tensor:
        """The next points."""

    @abstractmethod
    def note(self, losses: Tensor) -> None:
        """Take the losses after the last move into account."""

    @abstractmethod
    def adapt(self, climb: Climb, ball: Ball, window: int, rho: float) -> None:
        """At a checkpoint, `window` steps after the last one: new lengths, and back to the best points."""


@dataclass
class HalvedSteps(Steps):
    """Linf and L2: steps with momentum, from 2 epsilon on, halved where they no longer lead up."""

    lengths: Tensor
    """(batch, 1, 1, 1)"""
    rises: Tensor
    """(batch,): moves up since the last checkpoint"""
    last_losses: Tensor
    halved: Tensor
    """bool (batch,): at the last checkpoint"""
    best_losses: Tensor
    """(batch,): at the last checkpoint"""

    @classmethod
    def begin(cls, climb: Climb, ball: Ball, warm: bool) -> Self:
        zeros = torch.zeros_like(climb.best_losses)
        lengths = broadcast(torch.full_like(zeros, 2 * ball.epsilon), climb.points)
        # as in the code released, the first move is compared with a loss of 0, and a halving precedes the first check
        return cls(lengths, zeros.clone(), zeros, torch.ones_like(zeros, dtype=torch.bool), climb.best_losses)

    @staticmethod
    def checkpoints(steps: int) -> list[int]:
        """22, 41, 57, 70, 80, 87, 93, 99 of 100."""
        window, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
        at = [window]
        while at[-1] + max(window - shrink, least) <= steps:
            window = max(window - shrink, least)
            at.append(at[-1] + window)
        return at

    def move(self, climb: Climb, ball: Ball, first: bool) -> Tensor:
        aimed = torch.addcmul(climb.points, self.lengths, ascent_direction(climb.gradient, ball.norm))
        aimed = ball.project(aimed, climb.images)
        if first:
            return aimed
        moved = climb.points.lerp(aimed, MOMENTUM_SHARE)
        moved.add_(climb.points - climb.previous, alpha=1 - MOMENTUM_SHARE)
        return ball.project(moved, climb.images)

    def note(self, losses: Tensor) -> None:
        self.rises += losses > self.last_losses
        self.last_losses = losses

    def adapt(self, climb: Climb, ball: Ball, window: int, rho: float) -> None:
        stuck = ~self.halved & (self.best_losses >= climb.best_losses)
        self.halved = (self.rises <= rho * window) | stuck
        self.lengths = self.lengths * broadcast(1 - 0.5 * self.halved.to(self.lengths.dtype), self.lengths)
        self.best_losses = climb.best_losses
        self.rises = torch.zeros_like(self.rises)
        climb.go_back(self.halved)


@dataclass
class SparseSteps(Steps):
    """L1: steps that move few coordinates, all by the same; how many follows the support of the best points."""

    lengths: Tensor
    """(batch, 1, 1, 1)"""
    counts: Tensor
    """(batch,): coordinates that a step moves"""
    supports: Tensor
    """(batch,): coordinates in which the best points differed from the images at the last checkpoint"""

    @classmethod
    def begin(cls, climb: Climb, ball: Ball, warm: bool) -> Self:
        pixels = climb.images[0].numel()
        whole = torch.full_like(climb.best_losses, pixels)
        supports = _support(climb) if warm else whole
        lengths = broadcast(torch.full_like(whole, ball.epsilon), climb.points)
        return cls(lengths, supports / SHORTER if warm else whole * 0.2, supports)

    @staticmethod
    def checkpoints(steps: int) -> list[int]:
        """Every 4 % of the steps."""
        window = max(int(0.04 * steps), 1)
        return list(range(window, steps + 1, window))

    def move(self, climb: Climb, ball: Ball, first: bool) -> Tensor:
        flat = climb.gradient.flatten(1)
        pixels = flat.shape[1]
        place = (pixels - self.counts).long().clamp(min=0, max=pixels - 1)  # of the least moved, by rising gradient
        counts = pixels - place
        largest = flat.abs().topk(int(counts.max()), dim=1).values
        moved = flat.sign() * (flat.abs() >= largest.gather(1, (counts - 1).unsqueeze(1)))
        moved = moved / (moved.abs().sum(1, keepdim=True) + TINY)
        return ball.project(torch.addcmul(climb.points, self.lengths, moved.view_as(climb.points)), climb.images)

    def note(self, losses: Tensor) -> None:
        pass

    def adapt(self, climb: Climb, ball: Ball, window: int, rho: float) -> None:
        supports = _support(climb)
        sparser = supports / self.supports < 0.95
        shorter = (self.lengths / SHORTER).clamp(min=SHORTEST * ball.epsilon)
        self.lengths = torch.where(broadcast(sparser, shorter), ball.epsilon, shorter)
        self.counts, self.supports = supports / SHORTER, supports
        climb.go_back(sparser)


def windows(checkpoints: list[int]) -> dict[int, int]:
    """How many steps lie between each checkpoint and the one before."""
    return {at: at - before for before, at in pairwise([0, *checkpoints])}


def _support(climb: Climb) -> Tensor:
    return (climb.best != climb.images).flatten(1).sum(1).to(climb.best_losses.dtype)
