"""The windows of the Square attack: how it begins, and what it tries next, in each norm.

Both kinds hold `points` (batch, channels, height, width), the best known of each sample. `propose` gives candidates
that differ in one window, then `accept` keeps those that are better, or `reject` keeps none. `keep` drops samples that
are done.

Random numbers are drawn in the order of AutoAttack's code, so that the same stream gives the same search.
"""

import math
from functools import cache, partial

import torch
from torch import Tensor

from jobs.common.attacks.ball import Ball
from jobs.common.attacks.base import Model
from jobs.common.attacks.prepared import windows
from jobs.common.attacks.projections import TINY, broadcast
from jobs.common.models.windowed import Windowed

TILES = 5
"""tiles along the height of the image where the search in L2 begins"""
SMALLEST_BUMP = 3


class Stripes:
    """L-infinity: vertical stripes to begin with, then windows in which each channel goes to one face of the ball.

    areas: the share of the image that each window covers. A window begins in rows 0 to height - side - 1, so that the
    last row and column are in none but windows as large as the image; so in the released code.
    """

    def __init__(self, images: Tensor, ball: Ball, areas: list[float], generator: torch.Generator) -> None:
        batch, channels, height, width = images.shape
        if channels > 1:  # as convolutions like it: else a network would have to turn round each candidate
            images = images.contiguous(memory_format=torch.channels_last)
        self.lower, self.upper = (images - ball.epsilon).clamp_(min=0), (images + ball.epsilon).clamp_(max=1)
        up = _random(generator, batch, channels, 1, width) > 0.5
        self.points = self.lower.clone()
        self.points[...] = torch.where(up, self.upper, self.lower)

        self.sides = [min(max(round(math.sqrt(area * height * width)), 1), height, width) for area in areas]
        draws = _random(generator, len(areas), 2 + channels)
        room = torch.tensor([(height - side, width - side) for side in self.sides], device=draws.device)
        self.corners = (draws[:, :2] * room).long().tolist()
        self.up = (draws[:, 2:] > 0.5).view(-1, channels, 1, 1)
        self.windowed: Windowed | None = None

    def passes(self, model: Model, number: int) -> Model | None:
        """Passes that compute what the next window changes; None where the model is as quick."""
        side = self.sides[number]
        if number == 0 or side < self.sides[number - 1]:
            self.windowed = windows(model, self.points, side)
        return None if self.windowed is None else partial(self.windowed.logits, *self._spans(number))

    def _spans(self, number: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The rows and the columns of a window."""
        (row, column), side = self.corners[number], self.sides[number]
        return (row, row + side), (column, column + side)

    def propose(self, number: int) -> Tensor:
        """The points themselves, changed until `accept`."""
        rows, columns = self._spans(number)
        place = (..., slice(*rows), slice(*columns))
        self.window = self.points[place]
        self.before = self.window.clone()
        torch.where(self.up[number], self.upper[place], self.lower[place], out=self.window)
        return self.points

    def accept(self, better: Tensor) -> None:
        """better: bool (batch,)."""
        torch.where(broadcast(better, self.window), self.window, self.before, out=self.window)
        if self.windowed:
            self.windowed.accept(better)

    def reject(self) -> None:
        """None is better."""
        self.window.copy_(self.before)
        if self.windowed:
            self.windowed.reject()

    def keep(self, keep: Tensor) -> None:
        """keep: bool (batch,)."""
        self.points, self.lower, self.upper = self.points[keep], self.lower[keep], self.upper[keep]
        if self.windowed:
            self.windowed.keep(keep)


class Bumps:
    """L2 and L1: tiles of bumps to begin with; then the perturbation of one window moves into another, on a new bump.

    areas: the share of the image that each window covers. The side of a window is odd and at least 3 where it fits.
    """

    def __init__(self, images: Tensor, ball: Ball, areas: list[float], generator: torch.Generator) -> None:
        self.images, self.ball, self.generator = images, ball, generator
        self.power = 2 if ball.norm == "L2" else 1  # the norm is the root of a sum of powers, here called mass
        height, width = images.shape[2:]
        sides = [max(round(math.sqrt(area * height * width)), SMALLEST_BUMP) for area in areas]
        self.sides = [min(side + (side % 2 == 0), height, width) for side in sides]
        self.points = self._at(self._tiles())
        self.differences = self.points - images
        self.mass = self._mass(self.differences)

    def _tiles(self) -> Tensor:
        """A bump of a random sign in each tile, channel and image. A tile is as wide as it is high."""
        batch, channels, height, width = self.images.shape
        side = max(height // TILES, 1)
        first = max((height - side * TILES) // 2, 0)
        differences = torch.zeros_like(self.images)
        for row in range(first, first + height // side * side, side):
            for column in range(first, first + width // side * side, side):
                shape = bump(side, bool(_random(self.generator, 1) > 0.5), self.power).to(self.images)
                signs = (2 * _random(self.generator, batch, channels, 1, 1) - 1).sign()
                tile = differences[..., row : row + side, column : column + side]  # cut off at the faces
                tile += shape[: tile.shape[2], : tile.shape[3]] * signs
        return differences

    def _at(self, differences: Tensor) -> Tensor:
        """The points in these directions: in L2 at distance epsilon, clipped to the box; in L1 the nearest allowed."""
        if self.power == 1:
            return self.ball.project(self.images + differences, self.images)
        scales = self.ball.epsilon / (self._root(self._mass(differences).sum(1, keepdim=True)) + TINY)
        return torch.addcmul(self.images, differences, scales).clamp_(0, 1)

    def passes(self, model: Model, number: int) -> Model | None:
        """None: the perturbation is scaled anew with each window, which changes every pixel."""
        return None

    def propose(self, number: int) -> Tensor:
        """Candidates: (batch, channels, height, width)."""
        batch, channels, height, width = self.images.shape
        side = self.sides[number]
        draws = _random(self.generator, 5 + batch * channels)
        room = torch.tensor([height - side, width - side] * 2, device=draws.device)
        row, column, other_row, other_column = (draws[:4] * room).long().tolist()
        signs = (2 * draws[5:] - 1).sign().view(batch, channels, 1, 1)
        place = (..., slice(row, row + side), slice(column, column + side))
        other = (..., slice(other_row, other_row + side), slice(other_column, other_column + side))
        shared_rows = slice(max(row, other_row), min(row, other_row) + side)  # empty where the windows lie apart
        shared = (..., shared_rows, slice(max(column, other_column), min(column, other_column) + side))
        masses = [self._mass(self.differences[window]) for window in (place, other, shared)]
        freed = (masses[0] + masses[1] - masses[2]).clamp(min=0)  # (batch, channels, 1, 1)
        unspent = (self.ball.epsilon**self.power - self.mass.sum(1, keepdim=True)).clamp(min=0) / channels

        shape = bump(side, bool(draws[4] > 0.5), self.power).to(self.images)
        change = shape * signs + self.differences[place] / (self._root(masses[0]) + TINY)
        change *= self._root(unspent + freed) / (self._root(self._mass(change)) + TINY)
        if self.power == 1:
            change *= channels  # as in the released code; the projection takes back what is too much
        differences = self.differences.clone()
        differences[other] = 0
        differences[place] = change
        self.candidates = self._at(differences)
        return self.candidates

    def accept(self, better: Tensor) -> None:
        """better: bool (batch,)."""
        rows = better.nonzero().squeeze(1)
        points = self.candidates[rows]
        differences = points - self.images[rows]
        self.points[rows], self.differences[rows] = points, differences
        self.mass[rows] = self._mass(differences)

    def reject(self) -> None:
        """None is better."""

    def keep(self, keep: Tensor) -> None:
        """keep: bool (batch,)."""
        states = (self.images, self.points, self.differences, self.mass)
        self.images, self.points, self.differences, self.mass = (state[keep] for state in states)

    def _mass(self, differences: Tensor) -> Tensor:
        """The sum of powers in each channel: (batch, channels, height, width) -> (batch, channels, 1, 1)."""
        powers = differences.square() if self.power == 2 else differences.abs()
        return powers.sum((2, 3), keepdim=True)

    def _root(self, mass: Tensor) -> Tensor:
        return mass.sqrt() if self.power == 2 else mass


@cache
def bump(side: int, transposed: bool, power: int) -> Tensor:
    """A positive and a negative half, each a pyramid, of norm 1 together: (side, side). transposed: left and right.

    A pyramid is a pile of squares around one centre, the k-th from the top of height 1 / k^2, in L1 (power 1) 1 / k^4.
    Source: section 3.3; for L1 the released code.
    """
    halves = torch.cat([_pyramid(side // 2, side, power), -_pyramid(side - side // 2, side, power)])
    halves /= torch.linalg.vector_norm(halves, power)
    return halves.T if transposed else halves


def _pyramid(height: int, width: int, power: int) -> Tensor:
    """(height, width), of norm 1."""
    rings = max(height, width) // 2 + 1
    heights = (torch.arange(1, rings + 1) ** (-2.0 if power == 2 else -4.0)).flip(0).cumsum(0).flip(0)  # by distance
    distances = torch.maximum(
        (torch.arange(height) - height // 2).abs().unsqueeze(1), (torch.arange(width) - width // 2).abs()
    )
    pyramid = heights[distances]
    pyramid /= torch.linalg.vector_norm(pyramid, power)
    return pyramid


def _random(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform in [0, 1)."""
    return torch.rand(shape, generator=generator, device=generator.device)
