"""The complement of a few boxes that hold the densest points: Mahloujifar et al. 2019, "Empirically Measuring
Concentration", section 4, for Linf.

The densest share q of the points, by the L1 distance to the k-th neighbour, is cut into T clusters around means in L1;
each cluster is put into a box around its mean. The error region is what lies outside of the boxes widened by epsilon;
its expansion lies outside of the boxes. The larger q, the smaller the region: q is found by halving.

A clustering depends on q, T and the seed alone, so one serves every epsilon and alpha.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jobs.inevitability.concentration.regions import TIE, BoxComplement, blocks

PRECISION = 0.005  # of q


@dataclass(frozen=True)
class Fit:
    """The boxes found for one epsilon."""

    region: BoxComplement
    densest: float
    """q, the share of points that the boxes were made of"""
    errors: int
    """points of the fit in the region"""
    adversarial: int
    """points of the fit in its expansion"""


@dataclass
class Clusterings:
    """The boxes around each share of the densest points that was asked for, computed once."""

    points: Tensor
    """float32 (n, d)"""
    densest: Tensor
    """int64 (n,): the points, those with the nearest neighbours first"""
    boxes: int
    iterations: int
    seed: int
    known: dict[float, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def around(self, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Centres and half widths (boxes, d), and the excess of every point (n,), for a share q."""
        if share not in self.known:
            chosen = self.points[self.densest[: int(len(self.points) * share)]]
            centres, widths = clustered(chosen, self.boxes, self.iterations, self.seed)
            self.known[share] = centres, widths, BoxComplement(centres, widths, 0.0).excess(self.points)
        return self.known[share]


def clustered(points: Tensor, boxes: int, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Lloyd's iterations with L1 distances and means, from centres drawn of the points: float32 (boxes, d), twice.

    points: float32 (n, d), n at least 1. The centres, and the largest distance of a point to its centre at each pixel.
    A cluster that no point is nearest to is left out. Ends when no point changes its cluster.
    """
    drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:boxes]
    centres, labels = points[drawn], None
    for _ in range(iterations):
        nearest = _nearest(points, centres)
        if labels is not None and bool((nearest == labels).all()):
            break
        # numbered anew without those that no point is nearest to
        labels = torch.from_numpy(np.unique(nearest.numpy(), return_inverse=True)[1])
        centres = torch.stack([points[labels == box].mean(0) for box in range(int(labels.max()) + 1)])
    assert labels is not None
    widths = [(points[labels == box] - centre).abs().amax(0) for box, centre in enumerate(centres)]
    return centres, torch.stack(widths)


def search(clusterings: Clusterings, errors: int, epsilon: float) -> Fit | None:
    """The largest share q whose region still has `errors` points, and of those tried the least expansion.

    None: even around the fewest points the widened boxes leave too few outside.
    """
    low, high = 0.0, 1.0
    best: Fit | None = None
    while high - low > PRECISION:
        share = (low + high) / 2
        if int(len(clusterings.points) * share) < 1:
            break
        centres, widths, excess = clusterings.around(share)
        inside, expanded = int((excess > epsilon + TIE).sum()), int((excess > TIE).sum())
        if inside < errors:
            high = share
            continue
        low = share
        if best is None or expanded <= best.adversarial:
            best = Fit(BoxComplement(centres, widths, epsilon), share, inside, expanded)
    return best


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Which centre is nearest to each point in L1, of equal ones the first: int64 (n,)."""
    parts = []
    for block in blocks(points):
        differences = torch.empty_like(block)
        lengths = [torch.sub(block, centre, out=differences).abs_().sum(1) for centre in centres]
        parts.append(torch.stack(lengths).argmin(0))
    return torch.cat(parts)
