"""FAB, the fast adaptive boundary attack: looks for the smallest perturbation that is misclassified.

Source: Croce & Hein 2020 ("Minimally distorted adversarial examples with a fast adaptive boundary attack").
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.apgd import on_sphere
from jobs.common.attacks.ball import Ball, Norm
from jobs.common.attacks.base import Attack, Cost, Goal, Search, all_finite
from jobs.common.attacks.losses import margin
from jobs.common.attacks.projections import TINY, broadcast
from jobs.common.attacks.projections_hyperplane import onto_hyperplane_l1, onto_hyperplane_l2, onto_hyperplane_linf
from jobs.common.attacks.targets import aim_at, first_of_each, groups, joined

PROJECTIONS = {"Linf": onto_hyperplane_linf, "L2": onto_hyperplane_l2, "L1": onto_hyperplane_l1}
DUAL_ORDERS = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}
SHORTEST = 1e-8  # of a way onto a border, where the ratio of two is taken


class FAB(Attack):
    """Steps over the linearised border between two classes, drawn to the image, then back towards it from beyond.

    The border is that to each of the likeliest other classes in turn, or (targets: 0) to the nearest one in each step.
    A search that has targets of its own is led there alone.
    """

    kind: Literal["fab"] = Field("fab", description="fast adaptive boundary attack: looks for the least perturbation")
    steps: int = Field(100, ge=1, le=100_000, description="steps of each start")
    restarts: int = Field(1, ge=1, le=1000, description="starts; from the second on at random points")
    targets: int = Field(9, ge=0, le=100_000, description="classes aimed at in turn; 0: at the nearest in each step")
    alpha_max: float = Field(0.1, ge=0, le=1, description="largest weight of the way that begins at the image")
    eta: float = Field(1.05, ge=1, le=2, description="length of a step, 1: up to the border")
    beta: float = Field(0.9, gt=0, le=1, description="what a perturbation is multiplied with once it is misclassified")
    minimise: bool = Field(
        True, description="go on below epsilon for the least norm; false: any perturbation in the ball is enough"
    )

    @property
    def finds_least(self) -> bool:
        return self.minimise

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        if self.targets == 0 and not targeted:
            return Cost(forward=2, backward=classes - 1).times(self.steps * self.restarts)
        aims = 1 if targeted else min(self.targets, classes - 1)
        return Cost(forward=2, backward=1).times(self.steps * self.restarts * aims)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        nearest = self.targets == 0 and search.goal.targets is None
        first = search.remaining
        best, least = search.images.clone(), search.images.new_full((len(search.images),), torch.inf)
        for group in [range(1)] if nearest else groups(search, self.targets):
            for restart in range(self.restarts):
                rows = first if self.minimise else search.remaining
                if not len(rows):
                    break
                aim = None if nearest else joined([aim_at(search, rows, rank) for rank in group])
                rows = rows.repeat(len(group))
                points = search.images[rows]
                if restart:
                    points = on_sphere(points, Ball(search.ball.norm, search.ball.epsilon / 2), generator)
                self._walk(search, rows, points, aim, best, least)
        rows = least.isfinite().nonzero().squeeze(1)
        search.record_minimum(rows, best[rows])

    def _walk(
        self, search: Search, rows: Tensor, points: Tensor, aim: Goal | None, best: Tensor, least: Tensor
    ) -> None:
        """One start. aim: classes aimed at; none: the nearest. best, least: of the whole batch, improved in place.

        The same row may walk to several classes; all its walks end with the first that succeeds.
        """
        ball, images, goal = search.ball, search.images[rows], search.goal[rows]
        for _ in range(self.steps):
            gaps, normals = _nearest(search, rows, points) if aim is None else _towards(search, rows, points, aim)
            points = self._step(ball, points, images, gaps, normals)
            reached = goal.reached(search.logits(rows, points))
            beyond = reached.nonzero().squeeze(1)
            if not len(beyond):
                continue
            differences = points - images
            norms = ball.norms(differences)
            order = beyond[norms[beyond].argsort()]
            shortest = order[first_of_each(rows[order])]  # of the walks of each row
            _improve(best, least, rows[shortest], points[shortest], norms[shortest])
            ends = shortest[:0] if self.minimise else shortest[ball.holds(points[shortest], images[shortest])]
            points = points.sub_(differences.mul_(broadcast((1 - self.beta) * reached, differences)))
            if len(ends):
                search.record_minimum(rows[ends], best[rows[ends]])
                remaining = ~search.successful[rows]
                rows, points, images = rows[remaining], points[remaining], images[remaining]
                goal, aim = goal[remaining], None if aim is None else aim[remaining]
                if not len(rows):
                    return

    def _step(self, ball: Ball, points: Tensor, images: Tensor, gaps: Tensor, normals: Tensor) -> Tensor:
        """Over the border, from the points and from the images, and between the two. gaps: of the points."""
        project = PROJECTIONS[ball.norm]
        flat, origin = points.flatten(1), images.flatten(1)
        way = project(flat, normals, gaps)
        way_from_image = project(origin, normals, gaps + torch.linalg.vecdot(normals, origin - flat))
        length = ball.norms(way).clamp(min=SHORTEST)
        weight = (length / (length + ball.norms(way_from_image).clamp(min=SHORTEST))).clamp(max=self.alpha_max)
        over = torch.add(flat, way, alpha=self.eta)
        over_from_image = torch.add(origin, way_from_image, alpha=self.eta)
        over = over.lerp_(over_from_image, weight.unsqueeze(1)).clamp_(0, 1)
        if not all_finite(over):  # gradients may overflow: begin again at the image
            over = over.where(over.isfinite(), origin)
        return over.view_as(points)


def _improve(best: Tensor, least: Tensor, rows: Tensor, points: Tensor, norms: Tensor) -> None:
    """Keep the points of some rows whose norms are smaller than the least so far. The rows are distinct."""
    before = least[rows]
    closer = norms < before
    least[rows], best[rows] = torch.where(closer, norms, before), points.where(broadcast(closer, points), best[rows])


def _towards(search: Search, rows: Tensor, points: Tensor, aim: Goal) -> tuple[Tensor, Tensor]:
    """How far below 0 the difference to the class aimed at is, (k,), and its gradient (k, pixels)."""
    loss = margin if search.goal.targets is not None else _lead
    _, gaps, gradient = search.gradient(rows, points, loss, aim)
    return gaps, gradient.flatten(1)


def _lead(logits: Tensor, goal: Goal) -> Tensor:
    """The target's logit minus the label's."""
    assert goal.targets is not None
    pair = logits.gather(1, torch.stack([goal.targets, goal.labels], dim=1))
    return pair[:, 0] - pair[:, 1]


def _nearest(search: Search, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the class whose linearised border is nearest to each point: a gradient for every other class."""
    labels, classes = search.goal.labels[rows], search.clean_logits.shape[1]
    aims = [Goal(labels, (labels + shift) % classes) for shift in range(1, classes)]
    _, lead_of, gradient_of = search.gradients_towards(rows, points, _lead, aims)
    leads, gradients = torch.stack(lead_of), torch.stack(gradient_of).flatten(2)
    sizes = torch.linalg.vector_norm(gradients, ord=DUAL_ORDERS[search.ball.norm], dim=2)
    chosen = (leads.abs() / (sizes + TINY)).argmin(0)
    each = torch.arange(len(rows), device=rows.device)
    return leads[chosen, each], gradients[chosen, each]
