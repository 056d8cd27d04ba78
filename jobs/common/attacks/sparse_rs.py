"""Sparse-RS: random search over which few coordinates change, without gradients.

Source: Croce, Andriushchenko, Singh, Flammarion & Hein 2022 ("Sparse-RS: a versatile framework for query-efficient
sparse black-box adversarial attacks"), algorithm 1 and the schedule of section 4.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.apgd_steps import PerSample
from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Goal, Search
from jobs.common.attacks.losses import margin
from jobs.common.attacks.projections import largest

AFTER = (50, 200, 500, 1000, 2000, 4000, 6000, 8000)
DIVISORS = (2, 4, 5, 6, 8, 10, 12, 15, 20)
"""what the share of swapped coordinates is divided by up to so many queries, of a search of 10,000"""


@dataclass
class Choice(PerSample):
    """Which coordinates are changed, and to what. images and points: (k, coordinates), flat; chosen: bool, alike."""

    rows: Tensor
    goal: Goal
    images: Tensor
    chosen: Tensor
    points: Tensor
    best: Tensor
    """(k,): the margins of the points"""


class SparseRS(Attack):
    """Epsilon coordinates at faces of the box; some are swapped at a time, and kept if the margin is no less.

    A sample leaves at the first success. The paper changes whole pixels, this attack single channels of them.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("L0",)

    kind: Literal["sparse_rs"] = Field("sparse_rs", description="random search over few coordinates, without gradients")
    queries: int = Field(5000, ge=1, le=1_000_000, description="choices tried after each start, one query each")
    alpha: float = Field(0.8, gt=0, le=1, description="share of the coordinates that the first swaps are a half of")
    restarts: int = Field(1, ge=1, le=1000, description="starts, each from another random choice")
    rescale: bool = Field(True, description="swaps shrink in proportion to the queries, not as if they were 10,000")

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.queries + 1, backward=0).times(self.restarts)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        for rows in search.starts(self.restarts):
            self._start(search, rows, generator)

    def _start(self, search: Search, rows: Tensor, generator: torch.Generator) -> None:
        count, images = int(search.ball.epsilon), search.images[rows].flatten(1)
        chosen = largest(_random(images, generator), count)
        points = torch.where(chosen, _faces(images, generator), images)
        worst = torch.full_like(images[:, 0], -torch.inf)
        state = Choice(rows, search.goal[rows], images, chosen, images, worst)
        self._try(search, state, chosen, points)
        for number in range(self.queries):
            if not len(state.rows):
                return
            self._try(search, state, *_swapped(state, self.swaps(number, count), generator))
        search.keep(state.rows, state.points.view(-1, *search.images.shape[1:]))

    def swaps(self, number: int, count: int) -> int:
        """How many of so many coordinates are swapped by a query."""
        place = int(number / self.queries * 10_000) if self.rescale else number
        return max(1, int(self.alpha / DIVISORS[bisect_left(AFTER, place)] * count))

    def _try(self, search: Search, state: Choice, chosen: Tensor, points: Tensor) -> None:
        """Ask for the margins of other points, and keep what is no worse."""
        shaped = points.view(-1, *search.images.shape[1:])
        logits = search.logits(state.rows, shaped)
        margins, reached = margin(logits, state.goal), state.goal.reached(logits)
        better = (margins >= state.best).unsqueeze(1)
        state.best = torch.maximum(state.best, margins)
        state.chosen = torch.where(better, chosen, state.chosen)
        state.points = torch.where(better, points, state.points)
        if bool(reached.any()):
            search.record(state.rows[reached], shaped[reached], logits[reached])
            state.keep(~reached)


def _swapped(state: Choice, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Other choices, in which so many coordinates give way to others or to other values, and their points."""
    leaving = largest(_random(state.images, generator).where(state.chosen, -1), count)
    staying = state.chosen & ~leaving
    coming = largest(_random(state.images, generator).where(~staying, -1), count)
    points = torch.where(coming, _faces(state.images, generator), torch.where(leaving, state.images, state.points))
    return staying | coming, points


def _faces(images: Tensor, generator: torch.Generator) -> Tensor:
    """0 or 1 at random, of a pixel on a face the other one."""
    at_random = (_random(images, generator) < 0.5).to(images)
    return torch.where(images == 0, 1, torch.where(images == 1, 0, at_random))


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
