"""Auto-PGD: projected gradient ascent that finds its own step sizes.

Sources: Croce & Hein 2020 ("Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks"), algorithm 1; in L1 Croce & Hein 2021 ("Mind the box"), section 4.
"""

from math import ceil
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.apgd_steps import Climb, HalvedSteps, SparseSteps, Steps, windows
from jobs.common.attacks.ball import Ball, Norm
from jobs.common.attacks.base import Attack, Cost, Goal, Loss, Search
from jobs.common.attacks.losses import LOSSES, LossName, fewest_classes
from jobs.common.attacks.projections import TINY, broadcast
from jobs.common.attacks.targets import aim_at, first_of_each, groups, joined
from service.errors import InputError


class _AutoPGD(Attack):
    """What the untargeted and the targeted attack share."""

    steps: int = Field(100, ge=1, le=100_000, description="steps of each start")
    restarts: int = Field(1, ge=1, le=1000, description="starts, each from another random point")
    rho: float = Field(0.75, ge=0, le=1, description="share of steps that must lead up, else they are halved")
    large_epsilon: bool = Field(
        False, description="L1 only: spend 30 % of the steps in a ball of 3 epsilon and 30 % in one of 2 epsilon"
    )

    def check_ball(self, ball: Ball, images: Tensor) -> None:
        super().check_ball(ball, images)
        if self.large_epsilon and ball.norm != "L1":
            raise InputError(f"large_epsilon is a schedule for L1, but the norm is {ball.norm}")

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        points = self.steps + 1
        if self.large_epsilon:  # three climbs, which begin at a point each
            points = max(self.steps, 2 * ceil(0.3 * self.steps)) + 3
        return Cost(points, points).times(self.restarts)

    def _start(self, search: Search, rows: Tensor, aims: list[Goal], loss: Loss, generator: torch.Generator) -> None:
        """One start of some rows for each of the aims, all at a time. aims: what the losses of the rows are about."""
        images, ball = search.images[rows], search.ball
        copies, aim = rows.repeat(len(aims)), joined(aims)
        if not self.large_epsilon:
            start = torch.cat([_random_start(images, ball, generator) for _ in aims])
            ascend(search, copies, aim, start, ball, self.steps, loss, self.rho)
            return
        points = torch.cat([images + _gaussian(images, generator) for _ in aims])
        images = search.images[copies]
        early = ceil(0.3 * self.steps)
        for times, steps in ((3, early), (2, early), (1, max(self.steps - 2 * early, 0))):
            around = Ball(ball.norm, times * ball.epsilon)
            start = around.project(points, images)
            points = ascend(search, copies, aim, start, around, steps, loss, self.rho, warm=True)


class APGD(_AutoPGD):
    """Auto-PGD on one loss. A restart is given to the samples on which it has not succeeded yet."""

    kind: Literal["apgd"] = Field("apgd", description="auto-PGD: projected ascent that finds its own step sizes")
    loss: LossName = Field("cross_entropy", description="what is maximised")

    def fewest_classes(self, targeted: bool) -> int:
        return fewest_classes(self.loss, targeted)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        for rows in search.starts(self.restarts):
            self._start(search, rows, [search.goal[rows]], LOSSES[self.loss], generator)


class APGDTargeted(_AutoPGD):
    """Auto-PGD towards one class after another, in the order of the clean logits; any class but the label counts.

    A search that has targets of its own is led there alone.
    """

    kind: Literal["apgd_targeted"] = Field("apgd_targeted", description="auto-PGD towards the likeliest other classes")
    targets: int = Field(9, ge=1, le=100_000, description="other classes aimed at, fewer if the model has fewer")
    loss: LossName = Field("dlr", description="what is maximised, of each target")

    def fewest_classes(self, targeted: bool) -> int:
        return fewest_classes(self.loss, targeted=True)

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        aims = 1 if targeted else min(self.targets, classes - 1)
        return super().cost(norm, classes, targeted).times(aims)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        for group in groups(search, self.targets):
            for rows in search.starts(self.restarts):
                aims = [aim_at(search, rows, rank) for rank in group]
                self._start(search, rows, aims, LOSSES[self.loss], generator)


def _random_start(images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    if ball.norm == "L1":
        return ball.project(images + _gaussian(images, generator), images)
    return on_sphere(images, ball, generator)


def on_sphere(images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """A random point on the surface of each image's ball, clipped to the box."""
    if ball.norm == "Linf":
        noise = 2 * torch.rand(images.shape, generator=generator, dtype=images.dtype, device=images.device) - 1
    else:
        noise = _gaussian(images, generator)
    return torch.addcmul(images, noise, broadcast(ball.epsilon / (ball.norms(noise) + TINY), images)).clamp_(0, 1)


def _gaussian(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)


def ascend(
    search: Search,
    rows: Tensor,
    aim: Goal,
    start: Tensor,
    ball: Ball,
    steps: int,
    loss: Loss,
    rho: float,
    warm: bool = False,
) -> Tensor:
    """Climb in a ball around the images of some rows: the points of the highest losses, of those that remain.

    The same row may climb with several aims; all its climbs leave with the first that is at the goal.

    start: points in the ball. warm: they say which coordinates matter (L1). Samples leave once they are at their goal,
    but not while the ball is larger than the search's, where nothing counts.
    """
    counts = ball == search.ball
    logits, losses, gradient = search.gradient(rows, start, loss, aim)
    climb = Climb(
        rows,
        search.goal[rows],
        aim,
        search.images[rows],
        start,
        start,
        gradient,
        start.clone(),
        gradient.clone(),
        losses,
    )
    rule = (SparseSteps if ball.norm == "L1" else HalvedSteps).begin(climb, ball, warm)
    due = windows(rule.checkpoints(steps))
    for step in range(1, steps + 1):
        if counts:
            _leave(search, climb, rule, logits)
        if not len(climb.rows):
            return climb.best
        points = rule.move(climb, ball, first=step == 1)
        logits, losses, gradient = search.gradient(climb.rows, points, loss, climb.aim)
        climb.arrive(points, losses, gradient)
        rule.note(losses)
        if step in due and step < steps:
            rule.adapt(climb, ball, due[step], rho)
    if counts:
        _leave(search, climb, rule, logits)
        last = first_of_each(climb.rows)
        search.keep(climb.rows[last], climb.points[last])
    return climb.best


def _leave(search: Search, climb: Climb, rule: Steps, logits: Tensor) -> None:
    """Record the samples that are at their goal, and go on without them."""
    reached = climb.goal.reached(logits).nonzero().squeeze(1)
    if len(reached):
        reached = reached[first_of_each(climb.rows[reached])]
        search.record(climb.rows[reached], climb.points[reached], logits[reached])
        remaining = ~search.successful[climb.rows]
        climb.keep(remaining)
        rule.keep(remaining)
