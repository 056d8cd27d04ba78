"""Distances between many points in blocks, so that memory does not grow with the square of their number.

Each distance is computed by the same operations in the same order, whatever the block, so results do not depend on it.
"""

import math

import torch
from torch import Tensor

TILE = 512, 2048  # rows and columns of L1 distances at a time: what fits into a processor's cache
SIDE = 4096  # of a block of pairs of points: 64 MiB


def l1(rows: Tensor, columns: Tensor) -> Tensor:
    """|x - y| summed over the pixels, as 2 max(x, y) - x - y: float32 (rows, columns), 0 for equal points.

    rows: float32 (a, d); columns: float32 (b, d). Pixel by pixel over a tile; four times as fast as torch.cdist.
    """
    across, down = columns.T.contiguous(), rows.T.contiguous()
    distances = torch.empty(len(rows), len(columns))
    row_sums, column_sums = _sums(down), _sums(across)
    for first in range(0, len(rows), TILE[0]):
        for start in range(0, len(columns), TILE[1]):
            a, b = down[:, first : first + TILE[0]], across[:, start : start + TILE[1]]
            total = torch.zeros(a.shape[1], b.shape[1])
            largest = torch.empty_like(total)
            for one, other in zip(a, b, strict=True):
                total += torch.maximum(one[:, None], other[None, :], out=largest)
            total = 2 * total - row_sums[first : first + TILE[0], None] - column_sums[None, start : start + TILE[1]]
            distances[first : first + TILE[0], start : start + TILE[1]] = total
    return distances.clamp_(min=0)


def neighbour_radii(points: Tensor, neighbours: int) -> Tensor:
    """The L1 distance of each point to its so many-th nearest, itself being the first: float32 (n,).

    points: float (n, d). neighbours: 1 to n. Small where points are dense; 0 for a point with enough duplicates.
    """
    points = points.float()
    nearest = torch.full((len(points), neighbours), torch.inf)
    for first in range(0, len(points), SIDE):
        for start in range(0, first + 1, SIDE):  # each pair of blocks once
            block = l1(points[first : first + SIDE], points[start : start + SIDE])
            _merge(nearest[first : first + SIDE], block)
            if start < first:
                _merge(nearest[start : start + SIDE], block.T)
    return nearest.amax(1)


def lengths(rows: Tensor, columns: Tensor, p: float) -> Tensor:
    """L2, Linf or L1 distances: float32 (rows, columns). rows: float (a, d); columns: float (b, d)."""
    if p == 1:
        return l1(rows.float(), columns.float())
    if math.isinf(p):
        return torch.cdist(rows.double(), columns.double(), p).float()
    squares = (columns.double() ** 2).sum(1) - 2 * rows.double() @ columns.double().T
    return squares.add_((rows.double() ** 2).sum(1)[:, None]).clamp_(min=0).sqrt_().float()


def _merge(nearest: Tensor, distances: Tensor) -> None:
    """Keep the least distances of each row, in place. nearest: (rows, k); distances: (rows, columns)."""
    least = distances.topk(min(nearest.shape[1], distances.shape[1]), 1, largest=False, sorted=False).values
    both = torch.cat([nearest, least], 1)
    nearest.copy_(both.topk(nearest.shape[1], 1, largest=False, sorted=False).values)


def _sums(pixels: Tensor) -> Tensor:
    """Over the first dimension one by one, as `l1` adds, so that the difference of equal points is exactly 0."""
    total = torch.zeros(pixels.shape[1])
    for each in pixels:
        total += each
    return total
