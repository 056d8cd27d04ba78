"""FMN, the fast minimum-norm attack, in four norms.

Source: Pintor et al. 2021 ("Fast minimum-norm adversarial attacks through adaptive norm constraints"), algorithm 1.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm, ascent_direction
from jobs.common.attacks.base import Cost, Search
from jobs.common.attacks.nearest import HALVINGS, prune, prunings
from jobs.common.attacks.projections import TINY, broadcast, onto_l1, project_l0
from jobs.common.attacks.shrinking import OnBall, Shrinking

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
            return Cost(forward=self.steps + prunings(self.steps) * HALVINGS, backward=self.steps)
        return super().cost(norm, classes, targeted)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        if search.ball.norm != "L0":
            super().attack(search, generator)
            return
        nearest = self.descend(search, self.steps - prunings(self.steps), generator)
        for _ in range(prunings(self.steps)):
            prune(search, nearest)
        nearest.record(search)

    def scheduled(self, norm: Norm) -> float:
        return 0.7 if norm == "L1" else 0.5

    def first_radii(self, descent: OnBall, gaps: Tensor, gradient: Tensor, norm: Norm) -> Tensor:
        if norm != "L0":
            return super().first_radii(descent, gaps, gradient, norm)
        rooms = torch.where(gradient > 0, 1 - descent.images, descent.images)
        gains = (gradient.abs() * rooms).flatten(1).sort(dim=1, descending=True).values.cumsum(1)
        return ((gains < gaps.unsqueeze(1)).sum(1) + 1).to(gaps)

    def radii(self, descent: OnBall, reached: Tensor, norms: Tensor, least: Tensor, share: float, norm: Norm) -> Tensor:
        radii = super().radii(descent, reached, norms, least, share, norm)
        if norm != "L0":
            return radii
        fewer = torch.minimum(radii.floor(), torch.minimum(norms, least) - 1)
        more = torch.maximum(radii.floor(), descent.radii + 1)
        return torch.where(reached, fewer, more).clamp(min=1)

    def move(self, descent: OnBall, gradient: Tensor, length: float, norm: Norm) -> Tensor:
        radii, differences = broadcast(descent.radii, gradient), descent.points - descent.images
        if norm == "Linf":
            moved = torch.addcmul(differences, gradient.sign(), radii * length)
            return torch.maximum(torch.minimum(moved, radii), -radii).add_(descent.images).clamp_(0, 1)
        if norm == "L0":  # from face to face, for the largest slope
            steepest = broadcast(gradient.flatten(1).abs().amax(1), gradient)
            moved = torch.add(descent.points, gradient / steepest, alpha=length)
            return project_l0(moved, descent.images, descent.radii.long())
        length *= L1_LENGTH if norm == "L1" else 1.0
        moved = torch.addcmul(differences, ascent_direction(gradient, "L2"), radii * length).flatten(1)
        if norm == "L1":
            moved = onto_l1(moved, descent.radii)
        else:
            norms = torch.linalg.vector_norm(moved, dim=1)
            moved *= (descent.radii / norms.clamp(min=TINY)).clamp(max=1).unsqueeze(1)
        return moved.view_as(gradient).add_(descent.images).clamp_(0, 1)
