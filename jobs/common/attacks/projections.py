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


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """One value a sample, shaped so that it multiplies a batch: (batch,) -> (batch, 1, ..., 1)."""
    return values.view(-1, *[1] * (like.dim() - 1))
