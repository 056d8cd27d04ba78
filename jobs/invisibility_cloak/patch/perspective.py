"""Perspective: the homography that takes the corners of a rectangle to those of another quadrangle."""

import torch
from torch import Tensor


def homography(sources: Tensor, destinations: Tensor) -> Tensor:
    """The maps that take four points to four others, many at a time.

    sources, destinations: (n, 4, 2), no three on a line. Returns (n, 3, 3), with 1 in the last place.
    """
    exact, ends = sources.double(), destinations.double()
    x, y = exact.unbind(2)  # (n, 4) each
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = []
    for axis, ends_of_axis in enumerate(ends.unbind(2)):
        own, other = torch.stack([x, y, one], 2), torch.stack([zero] * 3, 2)
        first = torch.cat([own, other] if axis == 0 else [other, own], 2)
        rows.append(torch.cat([first, -torch.stack([x, y], 2) * ends_of_axis[..., None]], 2))
    system = torch.cat(rows, 1)  # (n, 8, 8)
    right = torch.cat(list(ends.unbind(2)), 1)  # (n, 8)
    solution = torch.linalg.solve(system, right)
    whole = torch.cat([solution, torch.ones_like(solution[:, :1])], 1)
    return whole.reshape(-1, 3, 3).to(sources.dtype)


def projected(maps: Tensor, at: Tensor) -> Tensor:
    """Places under homographies, each under one: (2, m). maps: (3, 3, m). at: (2, m)."""
    raised = maps[:, 0] * at[0] + maps[:, 1] * at[1] + maps[:, 2]
    return raised[:2] / raised[2]
