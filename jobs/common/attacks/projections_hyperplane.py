"""The shortest way from a point of the box [0, 1] onto a hyperplane within the box. Pure functions on batches.

Each way goes down the value w.v - b of the hyperplane. Coordinate i may move by its room: to 0 if w_i > 0, to 1 if
w_i < 0. A length in L-infinity or L2 is the root of a concave piecewise-linear equation, which Newton's method reaches
from below in finitely many steps, a handful in practice, where sorting would order every coordinate of every point.
"""

import torch
from torch import Tensor

FIRST_SHARE = 32  # largest slopes that are looked at first
TINY = 1e-30


def onto_hyperplane_linf(points: Tensor, normals: Tensor, gaps: Tensor) -> Tensor:
    """Differences d of least L-infinity norm with w.(t + d) = b and t + d in [0, 1].

    points t, normals w: (batch, coordinates); gaps: (batch,), w.t - b. Where no point of the box lies on the
    hyperplane, the way to the corner that comes nearest. Source: Croce & Hein 2020 (FAB).
    """
    directions, slopes, rooms = _descent(points, normals, gaps)
    lengths = _lengths(slopes, rooms, gaps.abs(), None)
    return torch.minimum(lengths, rooms).mul_(directions)


def onto_hyperplane_l2(points: Tensor, normals: Tensor, gaps: Tensor) -> Tensor:
    """The same with the least L2 norm."""
    directions, slopes, rooms = _descent(points, normals, gaps)
    lengths = _lengths(slopes, rooms, gaps.abs(), slopes)
    return torch.minimum(lengths * slopes, rooms).mul_(directions)


def onto_hyperplane_l1(points: Tensor, normals: Tensor, gaps: Tensor) -> Tensor:
    """The same with the least L1 norm: whole rooms in the order of falling slopes, until the gap is closed."""
    directions, slopes, rooms = _descent(points, normals, gaps)
    moves = torch.zeros_like(points)
    open_ = torch.arange(len(points), device=points.device)
    share = min(FIRST_SHARE, points.shape[1])
    while len(open_):
        steepest, places = slopes[open_].topk(share, dim=1)
        room = rooms[open_].gather(1, places)
        gains = steepest * room
        before = gains.cumsum(1) - gains
        used = ((gaps[open_].abs().unsqueeze(1) - before) / steepest.clamp(min=TINY)).clamp(min=0).minimum(room)
        moves[open_] = torch.zeros_like(slopes[open_]).scatter(1, places, used)
        closed = before[:, -1] + gains[:, -1] >= gaps[open_].abs()
        if share == points.shape[1]:
            break
        open_ = open_[~closed]
        share = min(share * 8, points.shape[1])
    return directions * moves


def _descent(points: Tensor, normals: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which way each coordinate goes (+-1, 0), how fast it closes the gap, and how far it may: (batch, coordinates)."""
    directions = normals.sign().mul_(torch.where(gaps < 0, 1.0, -1.0).unsqueeze(1))
    rooms = torch.addcmul(directions.clamp(min=0), directions, points, value=-1)  # t if it goes down, 1 - t if up
    return directions, normals.abs(), rooms


def _lengths(slopes: Tensor, rooms: Tensor, gaps: Tensor, speeds: Tensor | None) -> Tensor:
    """The root x of sum_i slope_i min(x speed_i, room_i) = gap, huge where even all rooms are too little: (batch, 1).

    speeds: None: all 1. The left side is concave in x, so that Newton's steps from 0 grow and never pass the root: each
    fills at least one more room, or is the last. The first counts rooms of 0 as well, which makes it shorter.
    """
    capacities = slopes * rooms
    rates = slopes if speeds is None else slopes * speeds
    feasible = capacities.sum(1) > gaps
    lengths = torch.zeros(len(gaps), 1, dtype=slopes.dtype, device=slopes.device)
    open_, closed = torch.empty_like(rooms), torch.empty_like(rooms)  # 1 or 0: comparing into floats is the fast way
    missing, rate = gaps, rates.sum(1)
    while True:
        longer = torch.where(feasible & (rate > 0), missing / rate, 0.0).unsqueeze(1)
        lengths = torch.maximum(lengths, longer)
        reached = lengths if speeds is None else lengths * speeds
        last, rate = rate, torch.gt(rooms, reached, out=open_).mul_(rates).sum(1)
        if not bool((rate < last).any()):  # no room was filled by the last step: it was exact
            return torch.where(feasible.unsqueeze(1), lengths, torch.finfo(slopes.dtype).max)
        missing = gaps - torch.le(rooms, reached, out=closed).mul_(capacities).sum(1)
