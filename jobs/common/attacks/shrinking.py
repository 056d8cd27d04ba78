"""Descents to the least perturbation on a ball that shrinks while its goal is reached: what DDN and FMN share."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Search
from jobs.common.attacks.descent import Descent, falling, patience
from jobs.common.attacks.losses import margin, soft_margin
from jobs.common.attacks.nearest import BISECTIONS, Nearest, shorten
from jobs.common.attacks.projections import TINY, broadcast

DUAL_ORDERS = {"Linf": 1.0, "L2": 2.0, "L1": math.inf}
LAST = 0.01
"""of the first length of a step and of the first share, what they fall to"""


@dataclass
class OnBall(Descent):
    """Where each sample is, in a ball of its own radius. radii, farthest: (k,)."""

    radii: Tensor
    farthest: Tensor
    """the norm of the way to the farthest corner of the box"""


class Shrinking(Attack):
    """Each step goes up a loss and back onto a ball of the sample's own radius.

    The radius shrinks by a share where the goal is reached and grows where it is not; before the first step it is the
    distance to the linearised border. Ours, beside the papers: lengths of steps are in units of the radius, so that
    they suit every data set; they and the shares fall in the first part of the steps, and afterwards a sample leaves
    that no longer comes nearer; the first steps follow the cross entropy, which sees all classes and ends in better
    places, and the others the margin, whose border is the one to come near to (the papers: DDN the first, FMN the
    second throughout); the last part of the way is bisected at the end.
    """

    steps: int = Field(100, ge=1, le=100_000, description="steps, at most: a sample leaves that no longer comes nearer")
    step_size: float = Field(2.0, gt=0, le=1000, description="length of the first step in units of the radius")
    gamma: float = Field(0.1, gt=0, lt=1, description="share by which the radius first shrinks or grows in a step")
    soft: float = Field(
        0.25, ge=0, le=1, description="share of the steps that follow the cross entropy; the others follow the margin"
    )

    @property
    def finds_least(self) -> bool:
        return True

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.steps + BISECTIONS, backward=self.steps)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        nearest = self.descend(search, self.steps, generator)
        shorten(search, nearest)
        nearest.record(search)

    def descend(self, search: Search, steps: int, generator: torch.Generator) -> Nearest:
        """The nearest points at the goal that are met."""
        nearest, start, ball = Nearest.none(search.images), Descent.begin(search), search.ball
        farthest = ball.norms(torch.maximum(start.images, 1 - start.images))
        descent = OnBall(**vars(start), radii=farthest, farthest=farthest)
        scheduled = self.scheduled(ball.norm) * steps
        for number in range(steps):
            if not len(descent.rows):
                break
            loss = soft_margin if number < self.soft * steps else margin
            logits, _, gradient = search.gradient(descent.rows, descent.points, loss, descent.goal)
            gradient = _somewhere(gradient, generator)
            reached, norms = descent.goal.reached(logits), ball.norms(descent.points - descent.images)
            nearest.improve(descent.rows, descent.points, norms, reached)
            least = nearest.norms[descent.rows]
            descent.note(least)
            share = falling(number, scheduled, LAST)
            if number == 0:
                radii = self.first_radii(descent, margin(logits, descent.goal).abs(), gradient, ball.norm)
            else:
                radii = self.radii(descent, reached, norms, least, self.gamma * share, ball.norm)
            descent.radii = torch.minimum(radii, descent.farthest)
            descent.points = self.move(descent, gradient, self.step_size * share, ball.norm)
            if number >= scheduled:
                descent.leave(patience(steps), least)
        return nearest

    def scheduled(self, norm: Norm) -> float:
        """The share of the steps in which lengths and shares fall; after it a sample leaves that stalls."""
        return 0.5

    def first_radii(self, descent: OnBall, gaps: Tensor, gradient: Tensor, norm: Norm) -> Tensor:
        """The distance of each sample to the border, as if that were a plane: (k,). gaps: (k,), of the logits."""
        slopes: Tensor = torch.linalg.vector_norm(gradient.flatten(1), ord=DUAL_ORDERS[norm], dim=1)
        return gaps / slopes.clamp(min=TINY)

    def radii(self, descent: OnBall, reached: Tensor, norms: Tensor, least: Tensor, share: float, norm: Norm) -> Tensor:
        """The radii for the next step: (k,). While a goal has never been reached, its share does not fall."""
        shrunk, grown = torch.minimum(norms, least) * (1 - share), descent.radii * (1 + share)
        unknown = descent.radii * (1 + self.gamma)
        return torch.where(reached, shrunk, torch.where(least.isfinite(), torch.minimum(grown, least), unknown))

    @abstractmethod
    def move(self, descent: OnBall, gradient: Tensor, length: float, norm: Norm) -> Tensor:
        """The next points. length: in units of the radii."""


def _somewhere(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient; a random direction where it is zero."""
    flat = (gradient.flatten(1) == 0).all(1)
    if not bool(flat.any()):
        return gradient
    noise = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype, device=gradient.device)
    return torch.where(broadcast(flat, gradient), noise, gradient)
