"""Descents to the least perturbation on a ball that shrinks while its goal is reached: what DDN and FMN share."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Search
from jobs.common.attacks.descent import Descent, falling
from jobs.common.attacks.losses import margin, soft_margin
from jobs.common.attacks.nearest import BISECTIONS, Nearest, shorten, straighten
from jobs.common.attacks.prepared import searching_prepared
from jobs.common.attacks.projections import TINY, broadcast

DUAL_ORDERS = {"Linf": 1.0, "L2": 2.0, "L1": math.inf}
LAST = 0.01
"""of the first length of a step and of the first share, what they fall to"""
SCHEDULED = 0.4
"""share of the steps in which lengths and shares fall; then a sample that has reached its goal is done with them"""
STRAIGHT = 0.2
"""share of the steps that are left for the end, on linearised borders"""


@dataclass
class OnBall(Descent):
    """Where each sample is, in a ball of its own radius. radii, farthest: (k,)."""

    radii: Tensor
    farthest: Tensor
    """the norm of the way to the farthest corner of the box"""


@dataclass(frozen=True)
class Step:
    """What the next points are made of. Its tensors are its own: a move may write over them."""

    differences: Tensor
    """of points and images: (k, channels, height, width)"""
    gradient: Tensor
    """the same shape, zero for no sample"""
    slopes: Tensor
    """the L2 norms of the gradient: (k,)"""
    length: float
    """in units of the radii"""


class Shrinking(Attack):
    """Each step goes up a loss and back onto a ball of the sample's own radius.

    The radius shrinks by a share where the goal is reached and grows where it is not; before the first step it is the
    distance to the linearised border. Ours, beside the papers: lengths of steps are in units of the radius, so that
    they suit every data set; they and the shares fall in the first part of the steps; the first steps follow the cross
    entropy, which sees all classes and ends in better places, and the others the margin, whose border is the one to
    come near to (the papers: DDN the first, FMN the second throughout). A sample that has reached its goal in the first
    part goes on to the nearest points of linearised borders, until it comes no nearer (`nearest.straighten`), and the
    last part of the way is bisected. The steps ask the prepared model, the bisection the model itself.
    """

    steps: int = Field(100, ge=1, le=100_000, description="steps, at most: a sample leaves that no longer comes nearer")
    step_size: float = Field(2.0, gt=0, le=1000, description="length of the first step in units of the radius")
    gamma: float = Field(0.1, gt=0, lt=1, description="share by which the radius first shrinks or grows in a step")
    soft: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of the first part of the steps that follows the cross entropy; the others follow the margin",
    )

    @property
    def finds_least(self) -> bool:
        return True

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.steps + BISECTIONS, backward=self.steps)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        straight = int(STRAIGHT * self.steps)
        with searching_prepared(search):
            nearest = self.descend(search, self.steps - straight, SCHEDULED * self.steps, generator)
            straighten(search, nearest, straight)
        shorten(search, nearest)
        nearest.record(search)

    def descend(self, search: Search, steps: int, scheduled: float, generator: torch.Generator) -> Nearest:
        """The nearest points at the goal that are met.

        scheduled: steps in which lengths and shares fall; after them a sample leaves that is done.
        """
        nearest, start, ball = Nearest.none(search.images), Descent.begin(search), search.ball
        farthest = ball.norms(torch.maximum(start.images, 1 - start.images))
        descent = OnBall(**vars(start), radii=farthest, farthest=farthest)
        for number in range(steps):
            if not len(descent.rows):
                break
            loss = soft_margin if number < self.soft * scheduled else margin
            logits, _, gradient = search.gradient(descent.rows, descent.points, loss, descent.goal)
            differences = descent.points - descent.images
            reached, norms = descent.goal.reached(logits), ball.norms(differences)
            nearest.improve(descent.rows, descent.points, norms, reached)
            least = nearest.norms[descent.rows]
            share = falling(number, scheduled, LAST)
            step = _step(differences, gradient, self.step_size * share, generator)
            if number == 0:
                radii = self.first_radii(descent, margin(logits, descent.goal).abs(), step, ball.norm)
            else:
                radii = self.radii(descent, reached, norms, least, self.gamma * share, ball.norm)
            descent.radii = torch.minimum(radii, descent.farthest)
            descent.points = self.move(descent, step, ball.norm)
            if number + 1 >= scheduled:
                self.leave(descent, steps, least, ball.norm)
        return nearest

    def leave(self, descent: OnBall, steps: int, least: Tensor, norm: Norm) -> None:
        """Drop the samples that are done: those that have reached their goal. least: their least norms so far, (k,)."""
        descent.keep(least.isinf())

    def first_radii(self, descent: OnBall, gaps: Tensor, step: Step, norm: Norm) -> Tensor:
        """The distance of each sample to the border, as if that were a plane: (k,). gaps: (k,), of the logits."""
        slopes: Tensor = torch.linalg.vector_norm(step.gradient.flatten(1), ord=DUAL_ORDERS[norm], dim=1)
        return gaps / slopes.clamp(min=TINY)

    def radii(self, descent: OnBall, reached: Tensor, norms: Tensor, least: Tensor, share: float, norm: Norm) -> Tensor:
        """The radii for the next step: (k,). While a goal has never been reached, its share does not fall."""
        shrunk, grown = torch.minimum(norms, least) * (1 - share), descent.radii * (1 + share)
        unknown = descent.radii * (1 + self.gamma)
        return torch.where(reached, shrunk, torch.where(least.isfinite(), torch.minimum(grown, least), unknown))

    @abstractmethod
    def move(self, descent: OnBall, step: Step, norm: Norm) -> Tensor:
        """The next points."""


def along_gradient(descent: OnBall, step: Step) -> Tensor:
    """The differences after a step along the gradient, over which they are written."""
    lengths = descent.radii * (step.length / (step.slopes + TINY))
    return step.differences.addcmul_(step.gradient, broadcast(lengths, step.gradient))


def scaled(images: Tensor, differences: Tensor, factors: Tensor) -> Tensor:
    """Points at so many times their differences from the images, cut to the box. factors: (k,)."""
    return torch.addcmul(images, differences, broadcast(factors, images)).clamp_(0, 1)


def _step(differences: Tensor, gradient: Tensor, length: float, generator: torch.Generator) -> Step:
    """In a random direction where the gradient is zero."""
    slopes: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    if not bool(slopes.all()):
        flat = slopes == 0
        noise = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype, device=gradient.device)
        gradient = torch.where(broadcast(flat, gradient), noise, gradient)
        slopes = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return Step(differences, gradient, slopes, length)
