"""Projected gradient ascent, from one step (FGSM) to many with restarts.

Sources: Goodfellow et al. 2015 (one step), Madry et al. 2018 (many); the steps in L1: Tramèr & Boneh 2019, SLIDE; in L0
Croce & Hein 2019 ("Sparse and imperceivable adversarial attacks"), PGD_0.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Ball, Norm, ascent_direction, random_in_ball
from jobs.common.attacks.base import Attack, Cost, Search, kept
from jobs.common.attacks.losses import LOSSES, LossName, fewest_classes

LONG = 5.0
"""of a step in L0, in widths of the box: what is kept then are nearly the coordinates of the largest linear gain"""


class FGSM(Attack):
    """One step of the length of epsilon, without a random start."""

    takes_maps: ClassVar[bool] = True

    kind: Literal["fgsm"] = Field("fgsm", description="one step of the length of epsilon")
    loss: LossName = Field("cross_entropy", description="what is maximised")

    def fewest_classes(self, targeted: bool) -> int:
        return fewest_classes(self.loss, targeted)

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=2, backward=1)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        rows = search.remaining
        if not len(rows):
            return
        images = search.images[rows]
        _, _, gradient = search.gradient(rows, images, LOSSES[self.loss])
        points = step(images, gradient, search.ball, 1.0, images)
        search.record(rows, points, search.logits(rows, points))


class PGD(Attack):
    """Many steps up the loss, each projected back. A restart is given to those on which it has not succeeded."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1", "L0")
    takes_maps: ClassVar[bool] = True

    kind: Literal["pgd"] = Field("pgd", description="many projected steps up the loss, with restarts")
    steps: int = Field(20, ge=1, le=100_000, description="steps of each start")
    step_size: float | None = Field(
        None,
        gt=0,
        le=100,
        description="length of a step in units of epsilon, none: 2.5 / steps, at most 2; in L0 how far the steepest "
        "coordinate would move, none: 5",
    )
    restarts: int = Field(1, ge=1, le=1000, description="starts, each from another random point")
    random_start: bool = Field(True, description="begin at a random point of the ball, not at the image")
    loss: LossName = Field("cross_entropy", description="what is maximised")

    def fewest_classes(self, targeted: bool) -> int:
        return fewest_classes(self.loss, targeted)

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.steps + 1, backward=self.steps).times(self.restarts)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        for rows in search.starts(self.restarts):
            self._start(search, rows, generator)

    def _start(self, search: Search, rows: Tensor, generator: torch.Generator) -> None:
        images, aim = search.images[rows], search.goal[rows]
        points = random_in_ball(images, search.ball, generator) if self.random_start else images
        size = self.step_size or (LONG if search.ball.norm == "L0" else min(2.5 / self.steps, 2))
        for _ in range(self.steps):
            logits, _, gradient = search.gradient(rows, points, LOSSES[self.loss], aim)
            hits = aim.reached(logits)
            if bool(hits.any()):
                search.record(rows[hits], points[hits], logits[hits])
                rows, images, points, gradient = kept(~hits, rows, images, points, gradient)
                aim = search.goal[rows]
            if not len(rows):
                return
            points = step(points, gradient, search.ball, size, images)
        search.record(rows, points, search.logits(rows, points))


def step(points: Tensor, gradient: Tensor, ball: Ball, size: float, images: Tensor) -> Tensor:
    """A step up the loss and back into ball and box. size: in units of epsilon, in L0 of the box.

    An L1 step goes to the pixels that the box lets move: a few steep ones on its faces would use up every step.
    """
    if ball.norm == "L1":
        gradient = gradient.masked_fill(torch.where(gradient > 0, points >= 1, points <= 0), 0)
    length = size if ball.norm == "L0" else size * ball.epsilon
    return ball.project(torch.add(points, ascent_direction(gradient, ball.norm), alpha=length), images)
