"""What attacks for the least perturbation share: the nearest points at the goal, and how they are brought nearer."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from jobs.common.attacks.base import Search
from jobs.common.attacks.losses import margin
from jobs.common.attacks.projections import broadcast, largest

BISECTIONS = 6
"""halvings of the last part of the way from an image to the nearest point at the goal"""
LAST_PART = 0.05
HALVINGS = 10
"""passes forward of a pruning, at most"""


def prunings(steps: int) -> int:
    """How many of the gradients of an attack in L0 are spent on leaving out coordinates (`prune`)."""
    return min(6, steps // 30)


@dataclass
class Nearest:
    """The nearest points at the goal, of each image of a batch. points: (batch, ...); norms: (batch,), inf: none."""

    points: Tensor
    norms: Tensor

    @classmethod
    def none(cls, images: Tensor) -> Self:
        return cls(images.clone(), images.new_full((len(images),), torch.inf))

    @property
    def known(self) -> Tensor:
        """The rows of which one is known."""
        return self.norms.isfinite().nonzero().squeeze(1)

    def improve(self, rows: Tensor, points: Tensor, norms: Tensor, reached: Tensor) -> None:
        """Keep the points of some rows that are at the goal and nearer. The rows are distinct."""
        closer = (reached & (norms < self.norms[rows])).nonzero().squeeze(1)
        if len(closer):
            self.points[rows[closer]] = points[closer]
            self.norms[rows[closer]] = norms[closer]

    def record(self, search: Search) -> None:
        """Hand them to the search."""
        rows = self.known
        search.record_minimum(rows, self.points[rows])


def shorten(search: Search, nearest: Nearest) -> None:
    """Bisect the last part of the way from each image to its point: BISECTIONS passes forward. Not in L0."""
    rows = nearest.known
    if not len(rows):
        return
    images, goal = search.images[rows], search.goal[rows]
    ways = nearest.points[rows] - images
    shares = ways.new_ones(len(rows))  # of the way, at which the goal is reached
    step = LAST_PART
    for _ in range(BISECTIONS):
        step /= 2
        points = torch.addcmul(images, ways, broadcast(shares - step, ways))
        reached = goal.reached(search.logits(rows, points))
        nearest.improve(rows, points, search.ball.norms(points - images), reached)
        shares = torch.where(reached, shares - step, shares)


def prune(search: Search, nearest: Nearest) -> None:
    """Leave out changed coordinates that the goal can do without, for L0: one gradient, and HALVINGS passes at most.

    First each changed coordinate goes to the face of the box that its gradient points to, which costs nothing in L0.
    Then as few of them are kept as reach the goal, in the order of gradient times change, by bisection.
    """
    rows = nearest.known
    if not len(rows):
        return
    images, goal = search.images[rows], search.goal[rows]
    points = nearest.points[rows]
    _, _, gradient = search.gradient(rows, points, margin, goal)
    faces = torch.where(points == images, images, (gradient > 0).to(images))
    faces = torch.where(gradient == 0, points, faces)
    gains = (gradient * (faces - images)).flatten(1)
    upper = nearest.norms[rows].long()  # how many are enough, and how many are too few
    lower = torch.zeros_like(upper)
    for _ in range(HALVINGS):
        if not bool((upper - lower > 1).any()):
            break
        middle = (lower + upper) // 2
        candidates = torch.where(largest(gains, middle).view_as(images), faces, images)
        reached = goal.reached(search.logits(rows, candidates))
        nearest.improve(rows, candidates, search.ball.norms(candidates - images), reached)
        lower, upper = torch.where(reached, lower, middle), torch.where(reached, middle, upper)
