"""FMN, the fast minimum-norm attack, in four norms.

Source: Pintor et al. 2021 ("Fast minimum-norm adversarial attacks through adaptive norm constraints"), algorithm 1.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Cost, Search
from jobs.common.attacks.descent import patience
from jobs.common.attacks.nearest import HALVINGS, confirm, prune, prunings
from jobs.common.attacks.prepared import searching_prepared
from jobs.common.attacks.projections import TINY, broadcast, onto_l1, project_l0
from jobs.common.attacks.shrinking import OnBall, Shrinking, Step, along_gradient, scaled

SCHEDULED_L0 = 0.5
"""share of the steps in L0 in which lengths and shares fall; then a sample leaves that no longer changes fewer"""
L1_LENGTH = 0.2
"""of a step in L1, whose radius is the sum over coordinates, as a share of that in L2"""


class FMN(Shrinking):
    """A step up the loss, then back into the ball of the norm.

    In the paper the loss is the margin, the share falls from 0.05 to 0.001, and steps from 1 to 0.01 in L2, for every
    norm. Ours: a step in Linf follows the signs; in L0 the first number of coordinates is that of the linearised
    border, and at the end coordinates are left out that the goal can do without (`nearest.prune`).
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1", "L0")

    kind: Literal["fmn"] = Field("fmn", description="fast minimum-norm: looks for the least perturbation in any norm")

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        if norm == "L0":
            return Cost(forward=self.steps + prunings(self.steps) * HALVINGS + 1, backward=self.steps)
        return super().cost(norm, classes, targeted)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        if search.ball.norm != "L0":
            super().attack(search, generator)
            return
        with searching_prepared(search):
            steps = self.steps - prunings(self.steps)
            nearest = self.descend(search, steps, SCHEDULED_L0 * steps, generator)
            for _ in range(prunings(self.steps)):
                prune(search, nearest)
        confirm(search, nearest)
        nearest.record(search)

    def leave(self, descent: OnBall, steps: int, least: Tensor, norm: Norm) -> None:
        if norm == "L0":
            descent.note(least)
            descent.leave(patience(steps), least)
        else:
            super().leave(descent, steps, least, norm)

    def first_radii(self, descent: OnBall, gaps: Tensor, step: Step, norm: Norm) -> Tensor:
        if norm != "L0":
            return super().first_radii(descent, gaps, step, norm)
        rooms = torch.where(step.gradient > 0, 1 - descent.images, descent.images)
        gains = (step.gradient.abs() * rooms).flatten(1).sort(dim=1, descending=True).values.cumsum(1)
        return ((gains < gaps.unsqueeze(1)).sum(1) + 1).to(gaps)

    def radii(self, descent: OnBall, reached: Tensor, norms: Tensor, least: Tensor, share: float, norm: Norm) -> Tensor:
        radii = super().radii(descent, reached, norms, least, share, norm)
        if norm != "L0":
            return radii
        fewer = torch.minimum(radii.floor(), torch.minimum(norms, least) - 1)
        more = torch.maximum(radii.floor(), descent.radii + 1)
        return torch.where(reached, fewer, more).clamp(min=1)

    def move(self, descent: OnBall, step: Step, norm: Norm) -> Tensor:
        if norm == "L0":  # from face to face, for the largest slope
            steepest = broadcast(step.gradient.flatten(1).abs().amax(1), step.gradient)
            moved = torch.addcmul(descent.points, step.gradient, step.length / steepest)
            return project_l0(moved, descent.images, descent.radii.long())
        if norm == "Linf":
            radii = broadcast(descent.radii, step.gradient)
            moved = step.differences.addcmul_(step.gradient.sign(), radii * step.length)
            return torch.clamp(moved, -radii, radii).add_(descent.images).clamp_(0, 1)
        if norm == "L2":
            moved = along_gradient(descent, step)
            norms: Tensor = torch.linalg.vector_norm(moved.flatten(1), dim=1)
            return scaled(descent.images, moved, (descent.radii / norms.clamp(min=TINY)).clamp(max=1))
        moved = along_gradient(descent, replace(step, length=L1_LENGTH * step.length))
        return onto_l1(moved.flatten(1), descent.radii).view_as(moved).add_(descent.images).clamp_(0, 1)
