"""HopSkipJump: looks for the least perturbation, and needs the predicted class alone, neither logits nor gradients.

Source: Chen, Jordan & Wainwright 2020 ("HopSkipJumpAttack: a query-efficient decision-based attack"), algorithms 1 and
2, and their code for how far the first steps look and for the start.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm, ascent_direction
from jobs.common.attacks.base import Attack, Cost, Search
from jobs.common.attacks.nearest import Nearest
from jobs.common.attacks.projections import broadcast

POINTS = 256
"""points in a pass"""
FIRST_REACH = 0.1
"""how far around the point the first directions reach"""
HALVINGS = 25
"""of a step, until it ends at the goal"""


class HopSkipJump(Attack):
    """Walks along the border of the goal: onto it by bisection, then a step in the direction in which it falls away.

    The direction is the mean of random ones, each counted by whether it leads over the border. A sample that is not at
    its goal at random pixels begins at another image of the batch that is; if there is none, it is not attacked.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")

    kind: Literal["hop_skip_jump"] = Field(
        "hop_skip_jump", description="the least perturbation, by predicted classes alone"
    )
    queries: int = Field(5000, ge=1, le=1_000_000, description="answers asked for, at most")
    directions: int = Field(100, ge=2, le=10_000, description="directions tried in the first step; more in later ones")
    starts: int = Field(100, ge=1, le=10_000, description="random images tried for the start")

    @property
    def finds_least(self) -> bool:
        return True

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.queries, backward=0)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        limit = search.queries + self.queries
        rows = search.remaining
        if not len(rows):
            return
        norm = search.ball.norm
        points, reached = self._start(search, rows, limit, generator)
        if lost := int((~reached).sum()):
            search.warnings.append(
                f"hop_skip_jump did not attack {lost} of {len(rows)} samples: of {self.starts} random images and the "
                "other images of the batch, none is at the goal"
            )
        rows, points = rows[reached], points[reached]
        pixels = search.images[0].numel()
        theta = pixels**-1.5 if norm == "L2" else pixels**-2.0
        nearest = Nearest.none(search.images)
        number = 0
        while len(rows):
            number += 1
            before = search.ball.norms(points - search.images[rows])
            points = self._onto_border(search, rows, points, theta, limit)
            distances = search.ball.norms(points - search.images[rows])
            nearest.improve(rows, points, distances, torch.ones_like(rows, dtype=torch.bool))
            going = search.queries[rows] < limit[rows]
            rows, points, before, distances = rows[going], points[going], before[going], distances[going]
            if number == 1:
                reach = torch.full_like(distances, FIRST_REACH)
            else:
                reach = before * theta * (math.sqrt(pixels) if norm == "L2" else pixels)
            count = int(self.directions * math.sqrt(number))
            normals = self._normals(search, rows, points, reach, count, limit, generator)
            points = self._step(search, rows, points, normals, distances / math.sqrt(number), limit)
        nearest.record(search)

    def _start(self, search: Search, rows: Tensor, limit: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A point for each row, and whether it is at the goal."""
        points = search.images[rows].clone()
        reached = torch.zeros_like(rows, dtype=torch.bool)
        for _ in range(self.starts):
            left = (~reached & (search.queries[rows] < limit[rows])).nonzero().squeeze(1)
            if not len(left):
                break
            tried = torch.rand(points[left].shape, generator=generator, dtype=points.dtype, device=points.device)
            hits = search.goal[rows[left]].reached(search.logits(rows[left], tried))
            points[left[hits]], reached[left[hits]] = tried[hits], True
        for place in (~reached).nonzero().squeeze(1).tolist():
            goal = search.goal[rows[place].repeat(len(search.images))]
            others = goal.reached(search.clean_logits).nonzero().squeeze(1)
            if len(others):  # the nearest of them, whose class is known
                distances = search.ball.norms(search.images[others] - points[place])
                points[place], reached[place] = search.images[others[distances.argmin()]], True
        return points, reached

    def _onto_border(self, search: Search, rows: Tensor, points: Tensor, theta: float, limit: Tensor) -> Tensor:
        """The nearest points at the goal between the images and the points, which are there, by bisection."""
        images = search.images[rows]
        distances = search.ball.norms(points - images)
        # shares of the way in L2, distances in L-infinity
        high = torch.ones_like(distances) if search.ball.norm == "L2" else distances
        low, apart = torch.zeros_like(high), torch.clamp(high * theta, max=theta)
        best = points.clone()
        while True:
            open_ = ((high - low > apart) & (search.queries[rows] < limit[rows])).nonzero().squeeze(1)
            middle = (low[open_] + high[open_]) / 2
            open_ = open_[settled := (middle > low[open_]) & (middle < high[open_])]  # float32 has no number between
            middle = middle[settled]
            if not len(open_):
                return best
            tried = _between(images[open_], points[open_], broadcast(middle, images[open_]), search.ball.norm)
            hits = search.goal[rows[open_]].reached(search.logits(rows[open_], tried))
            best[open_[hits]], high[open_[hits]] = tried[hits], middle[hits]
            low[open_[~hits]] = middle[~hits]

    def _normals(
        self,
        search: Search,
        rows: Tensor,
        points: Tensor,
        reach: Tensor,
        count: int,
        limit: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Steps of length 1 in the direction in which the random ones lead to the goal (section III-C, eq. 16)."""
        total, weighted = torch.zeros_like(points), torch.zeros_like(points)
        balance = points.new_zeros(len(rows))  # the sum of the signs
        tries = (limit[rows] - search.queries[rows]).clamp(max=count)
        first = 0
        while first < count and len(rows):
            size = min(max(1, POINTS // len(rows)), count - first)
            shape = (size, *points.shape)
            if search.ball.norm == "L2":
                noise = torch.randn(shape, generator=generator, dtype=points.dtype, device=points.device)
            else:
                noise = 2 * torch.rand(shape, generator=generator, dtype=points.dtype, device=points.device) - 1
            noise /= torch.linalg.vector_norm(noise.flatten(2), dim=2).view(size, -1, 1, 1, 1)
            tried = (points + noise * reach.view(-1, 1, 1, 1)).clamp_(0, 1)
            noise = (tried - points) / reach.view(-1, 1, 1, 1)
            allowed = torch.arange(first, first + size, device=rows.device).unsqueeze(1) < tries
            asked, all_rows = allowed.flatten(), rows.repeat(size)
            signs = points.new_zeros(len(asked))
            if bool(asked.any()):
                logits = search.logits(all_rows[asked], tried.flatten(0, 1)[asked])
                signs[asked] = 2 * search.goal[all_rows[asked]].reached(logits).to(points.dtype) - 1
            signs = signs.view(size, -1)
            balance += signs.sum(0)
            total += (noise * allowed.view(size, -1, 1, 1, 1)).sum(0)
            weighted += (noise * signs.view(size, -1, 1, 1, 1)).sum(0)
            first += size
        mean = balance / tries.clamp(min=1)
        normals = weighted - total * broadcast(mean.where(mean.abs() < 1, 0), total)
        return ascent_direction(normals, search.ball.norm)

    def _step(
        self, search: Search, rows: Tensor, points: Tensor, normals: Tensor, lengths: Tensor, limit: Tensor
    ) -> Tensor:
        """As far along the normals as the lengths say, halved until the goal is reached; else the points themselves."""
        moved, lengths = points.clone(), lengths.clone()
        open_ = torch.arange(len(rows), device=rows.device)
        for _ in range(HALVINGS):
            open_ = open_[search.queries[rows[open_]] < limit[rows[open_]]]
            if not len(open_):
                break
            tried = torch.addcmul(points[open_], normals[open_], broadcast(lengths[open_], normals)).clamp_(0, 1)
            hits = search.goal[rows[open_]].reached(search.logits(rows[open_], tried))
            moved[open_[hits]] = tried[hits]
            open_ = open_[~hits]
            lengths[open_] /= 2
        return moved


def _between(images: Tensor, points: Tensor, places: Tensor, norm: Norm) -> Tensor:
    """L2: that share of the way from the images to the points. L-infinity: the points, brought that near."""
    if norm == "L2":
        return torch.lerp(images, points, places)
    return torch.maximum(torch.minimum(points, images + places), images - places)
