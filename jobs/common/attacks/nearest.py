"""What attacks for the least perturbation share: the nearest points at the goal, and how they are brought nearer."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from jobs.common.attacks.base import Search, kept
from jobs.common.attacks.losses import margin
from jobs.common.attacks.projections import broadcast, largest
from jobs.common.attacks.projections_hyperplane import onto_hyperplane_l1, onto_hyperplane_l2, onto_hyperplane_linf

BISECTIONS = 7
"""points tried on the last part of the way from an image to the nearest point at the goal"""
LAST_PART = 0.05
FIRST_SHARE, LAST_SHARE = 0.5, 0.1
"""of the way to the linearised border, that a sample goes at first, and below which it leaves"""
OVERSHOOT = 0.02
PROGRESS = 1e-3
"""share of its distance by which a step must bring a sample nearer"""
ONTO_HYPERPLANE = {"Linf": onto_hyperplane_linf, "L2": onto_hyperplane_l2, "L1": onto_hyperplane_l1}
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
    """Bisect the last part of the way from each image to its point: BISECTIONS passes forward. Not in L0.

    The first asks for the points themselves, which may have been found by way of another model with nearly the same
    logits: one that is not at the goal is looked for a little beyond.
    """
    rows = nearest.known
    if not len(rows):
        return
    images, goal = search.images[rows], search.goal[rows]
    ways = nearest.points[rows] - images
    nearest.norms[rows] = torch.inf
    shares = ways.new_full((len(rows),), 1 + LAST_PART)  # of the way, at which the goal is taken to be reached
    step = LAST_PART
    for _ in range(BISECTIONS):
        points = torch.addcmul(images, ways, broadcast(shares - step, ways)).clamp_(0, 1)
        reached = goal.reached(search.logits(rows, points))
        nearest.improve(rows, points, search.ball.norms(points - images), reached)
        shares = torch.where(reached, shares - step, shares)
        step /= 2


def straighten(search: Search, nearest: Nearest, steps: int) -> None:
    """Go to where the linearised border is nearest to the image, again and again: so many gradients at most. Not in L0.

    At a point the border of the goal is taken to be a plane, of which the point of the box nearest to the image is
    known. A sample goes a share of the way there, OVERSHOOT beyond; the share is halved by each step that brings the
    image no nearer, and the sample leaves when it is small. What is projected is the image, as in the biased steps of
    FAB (Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack"), eq. 9.
    """
    rows = nearest.known
    images, points, goal = search.images[rows], nearest.points[rows], search.goal[rows]
    shares = images.new_full((len(rows),), FIRST_SHARE)
    project = ONTO_HYPERPLANE[search.ball.norm]
    for number in range(steps):
        if not len(rows):
            break
        logits, margins, gradient = search.gradient(rows, points, margin, goal)
        ways = points - images
        norms = search.ball.norms(ways)
        reached = goal.reached(logits)
        nearer = reached & (norms < (1 - PROGRESS) * nearest.norms[rows])
        nearest.improve(rows, points, norms, reached)
        if number:
            shares = torch.where(nearer, shares, shares / 2)
        normals = gradient.flatten(1)
        gaps = margins - (normals * ways.flatten(1)).sum(1)  # of the plane at the image
        ends = project(images.flatten(1), normals, gaps).view_as(images).mul_(1 + OVERSHOOT).add_(images)
        points = torch.lerp(points, ends, broadcast(shares, ends)).clamp_(0, 1)
        remain = shares >= LAST_SHARE
        if not bool(remain.all()):
            rows, images, points, shares = kept(remain, rows, images, points, shares)
            goal = search.goal[rows]


def confirm(search: Search, nearest: Nearest) -> None:
    """Forget the points that are not at the goal after all: one pass forward.

    For those found by way of another model with nearly the same logits.
    """
    rows = nearest.known
    if len(rows):
        lost = ~search.goal[rows].reached(search.logits(rows, nearest.points[rows]))
        nearest.norms[rows[lost]] = torch.inf


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
