"""Projections onto the ball of a norm around the clean images and onto the box [0, 1]. Pure functions on batches.

points, centres: (batch, ...), the same shape; the centres are in the box.
"""

import torch
from torch import Tensor

TINY = 1e-12


def project_linf(points: Tensor, centres: Tensor, epsilon: float) -> Tensor:
    """The nearest points in the L-infinity ball and in the box."""
    return (points - centres).clamp_(-epsilon, epsilon).add_(centres).clamp_(0, 1)


def project_l2(points: Tensor, centres: Tensor, epsilon: float) -> Tensor:
    """The nearest points in the L2 ball, then clipped to the box, which brings them nearer to the centres."""
    differences = points - centres
    norms = broadcast(torch.linalg.vector_norm(differences.flatten(1), dim=1), differences)
    return (centres + differences * (epsilon / norms.clamp(min=TINY)).clamp(max=1)).clamp_(0, 1)


def project_l1(points: Tensor, centres: Tensor, epsilon: float) -> Tensor:
    """The nearest points in both the L1 ball and the box. Source: Croce & Hein 2021, "Mind the box", proposition 3.1.

    Coordinate i moves by min(max(|d_i| - t, 0), room_i), d the difference and room_i the way to the face of the box.
    The sum of these moves falls as t grows, and is linear between the knots |d_i| and |d_i| - room_i, where a
    coordinate begins to move and where it reaches its face. t is where the sum is epsilon, or 0.
    """
    differences = (points - centres).flatten(1)
    lengths = differences.abs()
    rooms = torch.where(differences > 0, 1 - centres.flatten(1), centres.flatten(1))
    knots, order = torch.cat([lengths, lengths - rooms], dim=1).sort(dim=1, descending=True)
    begin = order < lengths.shape[1]
    slopes = torch.where(begin, 1.0, -1.0).to(knots).cumsum(1)  # how fast the sum grows below each knot
    sums = torch.nn.functional.pad((slopes[:, :-1] * (knots[:, :-1] - knots[:, 1:])).cumsum(1), (1, 0))
    last = (sums < epsilon).sum(1, keepdim=True) - 1  # the last knot at which less than epsilon is spent
    spent, slope, knot = sums.gather(1, last), slopes.gather(1, last), knots.gather(1, last)
    threshold = (knot - (epsilon - spent) / slope.clamp(min=1)).clamp(min=0)
    moved = torch.minimum((lengths - threshold).clamp(min=0), rooms)
    moved = moved * (epsilon / moved.sum(1, keepdim=True).clamp(min=epsilon))  # far points: rounding of the threshold
    return (centres + (moved * differences.sign()).view_as(points)).clamp_(0, 1)


def project_l0(points: Tensor, centres: Tensor, counts: int | Tensor) -> Tensor:
    """The nearest points in the box that differ from the centres in at most so many coordinates.

    counts: of all, or int64 (batch,). Those stay moved whose way back would cost the most of the squared distance.
    """
    origin, ends = centres.flatten(1), points.flatten(1)
    inside = ends.clamp(0, 1)
    gains = (ends - origin).square() - (ends - inside).square()
    chosen = largest(gains, counts)
    return torch.where(chosen, inside, origin).view_as(points)


def largest(values: Tensor, counts: int | Tensor) -> Tensor:
    """Where the largest so many of each row are, of equals the first: (batch, n) -> bool (batch, n).

    counts: of all, which needs no waiting for a GPU, or int64 (batch,).
    """
    chosen = torch.zeros_like(values, dtype=torch.bool)
    if isinstance(counts, int):
        return chosen.scatter_(1, values.topk(min(counts, values.shape[1]), dim=1).indices, True)
    most = int(counts.max().clamp(max=values.shape[1])) if len(counts) else 0
    taken = torch.arange(most, device=values.device) < counts.unsqueeze(1)
    return chosen.scatter_(1, values.topk(most, dim=1).indices, taken)


def onto_l1(differences: Tensor, radii: Tensor) -> Tensor:
    """The nearest differences whose L1 norms are at most the radii: (batch, n), (batch,) -> (batch, n).

    Each coordinate shrinks by a threshold t, where sum_i max(|d_i| - t, 0) is the radius. The sum is convex in t, so
    that Newton's steps from below never pass the root and reach it in finitely many steps, where sorting would order
    every coordinate. Source of the threshold: Duchi et al. 2008.
    """
    lengths, radii = differences.abs(), radii.unsqueeze(1)
    thresholds = (lengths.amax(1, keepdim=True) - radii).clamp(min=0)  # the longest alone may not exceed the radius
    last = torch.full_like(radii, torch.inf)
    while True:
        above = (lengths - thresholds).clamp_(min=0)
        counts = torch.count_nonzero(above, 1).unsqueeze(1).to(radii)
        if not bool((counts < last).any()):
            return torch.copysign(above, differences)
        thresholds = thresholds + ((above.sum(1, keepdim=True) - radii) / counts.clamp(min=1)).clamp(min=0)
        last = counts


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """One value a sample, shaped so that it multiplies a batch: (batch,) -> (batch, 1, ..., 1)."""
    return values.view(-1, *[1] * (like.dim() - 1))
