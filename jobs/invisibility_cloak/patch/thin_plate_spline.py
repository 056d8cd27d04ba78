"""Thin-plate splines: the smoothest map of the plane that takes some points to others, the wrinkles of cloth.

Source: Bookstein 1989, "Principal warps: thin-plate splines and the decomposition of deformations".
"""

import torch
from torch import Tensor


def spline(points: Tensor, values: Tensor) -> Tensor:
    """The splines f with f(points) = values, many at a time.

    points: (n, k, 2), k at least 3, not all on one line. values: (n, k, 2). Returns (n, k + 3, 2): weights of the k
    kernels, then those of 1, x and y.
    """
    count, controls = points.shape[:2]
    points, exact = points.double(), values.double()
    affine = torch.cat([torch.ones_like(points[..., :1]), points], 2)  # (n, k, 3)
    system = torch.zeros(count, controls + 3, controls + 3, dtype=torch.float64, device=points.device)
    system[:, :controls, :controls] = _kernel((points[:, :, None] - points[:, None]).square().sum(3))
    system[:, :controls, controls:] = affine
    system[:, controls:, :controls] = affine.transpose(1, 2)
    right = torch.cat([exact, torch.zeros(count, 3, 2, dtype=torch.float64, device=points.device)], 1)
    solution: Tensor = torch.linalg.solve(system, right)
    return solution.to(values.dtype)


def splined(weights: Tensor, points: Tensor, at: Tensor) -> Tensor:
    """Splines at places of the plane, each at one: (2, m).

    weights: (k + 3, 2, m), of the spline of each place. points: (k, 2, m), its control points. at: (2, m).
    """
    controls = len(points)
    kernels = _kernel((at - points).square().sum(1))  # (k, m)
    affine = weights[controls] + weights[controls + 1] * at[0] + weights[controls + 2] * at[1]
    return affine + (kernels[:, None] * weights[:controls]).sum(0)


def _kernel(squares: Tensor) -> Tensor:
    """r^2 log r of squared distances r^2; 0 at 0."""
    return 0.5 * squares * squares.clamp_min(torch.finfo(squares.dtype).tiny).log()
