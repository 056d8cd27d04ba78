"""Error regions that a search ends with, and which points lie in them or within epsilon of them.

Every region says of each point whether it is in the region expanded by epsilon; by 0, in the region itself. Distances
that differ by less than TIE are equal, so that pixels on a grid, a float32 each, are counted by their exact values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

TIE = 1e-6
BLOCK = 1 << 18  # numbers in a block of differences: what fits into a processor's cache


class Region(Protocol):
    """A set of points under a norm."""

    def within(self, points: Tensor, epsilons: Sequence[float]) -> Tensor:
        """bool (epsilons, n): which points are in the region expanded by each epsilon. points: float (n, d)."""
        ...

    def pictures(self) -> Tensor:
        """float (k, d): what the region is made of, as images: a normal, or centres."""
        ...


@dataclass(frozen=True)
class HalfSpace:
    """All x with normal·x at most offset."""

    normal: Tensor
    """float64 (d,), of length 1 in the dual norm, so that normal·x - offset is the distance of x to the region"""
    offset: float

    def within(self, points: Tensor, epsilons: Sequence[float]) -> Tensor:
        distances = torch.cat([block.double() @ self.normal for block in blocks(points)]) - self.offset
        return _at_most(distances, epsilons)

    def pictures(self) -> Tensor:
        return self.normal[None]


@dataclass(frozen=True)
class BallUnion:
    """All x within its radius of any of the centres, in L2, Linf or L1."""

    centres: Tensor
    """float64 (balls, d)"""
    radii: Tensor
    """float64 (balls,)"""
    p: float

    def within(self, points: Tensor, epsilons: Sequence[float]) -> Tensor:
        distances = torch.full((len(points),), torch.inf, dtype=torch.float64)
        for centre, radius in zip(self.centres, self.radii, strict=True):
            lengths = [torch.linalg.vector_norm(each.double() - centre, self.p, 1) for each in blocks(points)]
            # the radius is the distance of some point, in float32
            distances = torch.minimum(distances, torch.cat(lengths) - radius * (1 + TIE))
        return _at_most(distances, epsilons)

    def pictures(self) -> Tensor:
        return self.centres


@dataclass(frozen=True)
class BoxComplement:
    """All x outside of every box that is widened by `margin` on each side, in Linf.

    Its expansion by an epsilon up to the margin lies outside of every box that is widened by margin - epsilon; that is
    what is counted, as in Mahloujifar et al. 2019. Where boxes overlap it is more than the expansion.
    """

    centres: Tensor
    """float32 (boxes, d)"""
    widths: Tensor
    """float32 (boxes, d): half of each box's sides"""
    margin: float

    def within(self, points: Tensor, epsilons: Sequence[float]) -> Tensor:
        return torch.stack([self.excess(points) > self.margin - each + TIE for each in epsilons])

    def excess(self, points: Tensor) -> Tensor:
        """float32 (n,): how far each point is outside of the nearest box, before it is widened; below 0 inside."""
        least = torch.full((len(points),), torch.inf)
        for centre, width in zip(self.centres, self.widths, strict=True):
            outside = [((each.float() - centre).abs_() - width).amax(1) for each in blocks(points)]
            least = torch.minimum(least, torch.cat(outside))
        return least

    def pictures(self) -> Tensor:
        return self.centres


def blocks(points: Tensor) -> Iterator[Tensor]:
    """The points in order, as many at a time as fit into a block."""
    rows = max(1, BLOCK // points.shape[1])
    for first in range(0, len(points), rows):
        yield points[first : first + rows]


def _at_most(distances: Tensor, epsilons: Sequence[float]) -> Tensor:
    return torch.stack([distances <= each + TIE for each in epsilons])
