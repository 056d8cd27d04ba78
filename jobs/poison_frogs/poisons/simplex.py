"""Least squares on the simplex: the nearest convex combination of k points to a target.

    min over c of ||sum_j c_j x_j - t||^2,  c >= 0,  sum_j c_j = 1

As the coefficients sum to one, this is the point of least norm in the polytope of the differences x_j - t, and their
k x k Gram matrix is all that the search needs to see. Sources: Wolfe 1976 ("Finding the nearest point in a polytope"),
an active-set method that ends at the exact minimiser after finitely many steps; the projection is that of Duchi et al.
2008 ("Efficient projections onto the l1-ball"), figure 1. Zhu et al. 2019 take up to 10,000 projected gradient steps.
"""

import torch
from torch import Tensor

GAP = 1e-13  # at which a search ends: how far c' G c / 2 can be above its minimum, as a share of the largest entry of G
MOST_STEPS = 20  # times k; a few times k are enough


def project(points: Tensor) -> Tensor:
    """The nearest points of the simplex. points: (..., k). Returns the same shape."""
    ordered = points.sort(dim=-1, descending=True).values
    counts = torch.arange(1, points.shape[-1] + 1, dtype=points.dtype, device=points.device)
    thresholds = (ordered.cumsum(-1) - 1) / counts  # what the largest 1, 2, ... are lowered by, so as to sum to 1
    last = (ordered > thresholds).sum(-1, keepdim=True) - 1
    return (points - thresholds.gather(-1, last)).clamp(min=0)


def nearest_combination(points: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
    """The coefficients of the convex combination of points that is nearest to a target, of many problems at once.

    points: (..., k, dimension). target: (..., dimension). start: (..., k), coefficients of a problem near to this one,
    which save steps. Returns (..., k), on the simplex, of the type of the points; the search itself is in float64.
    """
    differences = points.double() - target.double().unsqueeze(-2)
    return least_norm(differences @ differences.mT, start).to(points.dtype)


def least_norm(gram: Tensor, start: Tensor | None = None) -> Tensor:
    """The c on the simplex that minimises c' G c, for many Gram matrices at once.

    gram: (..., k, k), symmetric, positive semidefinite, finite. start: (..., k). Returns float64 (..., k).
    """
    k = gram.shape[-1]
    flat = gram.detach().reshape(-1, k, k).double()
    sizes = flat.diagonal(dim1=1, dim2=2).amax(1)
    flat = flat / torch.where(sizes > 0, sizes, 1.0).view(-1, 1, 1)
    if start is None:
        nearest = flat.diagonal(dim1=1, dim2=2).argmin(1)
        coefficients = torch.nn.functional.one_hot(nearest, k).double()
    else:
        coefficients = project(start.detach().reshape(-1, k).double())
    _search(flat, coefficients)
    return coefficients.view(gram.shape[:-1])


def _search(gram: Tensor, coefficients: Tensor) -> None:
    """Wolfe's method on each problem, in place. gram: (problems, k, k), entries up to 1. found: (problems, k)."""
    rows = torch.arange(len(gram), device=gram.device)
    support = coefficients > 0
    entered = torch.full_like(rows, -1)  # the point that was taken into the support last
    for _ in range(MOST_STEPS * gram.shape[-1]):
        if not len(rows):
            return
        now, mask = coefficients[rows], support[rows]
        aim = _affine(gram[rows], mask)
        behind = mask & (aim <= 0)
        ways = torch.where(behind, now / (now - aim).clamp(min=torch.finfo(now.dtype).tiny), torch.inf)
        way = ways.amin(1, keepdim=True).clamp(max=1)
        dropped = behind & (ways <= way)  # what the way to the aim leaves the simplex at
        now = torch.where(dropped, 0.0, now + way * (aim - now)).clamp(min=0)
        now = now / now.sum(1, keepdim=True)
        mask &= ~dropped
        arrived = ~behind.any(1)
        slopes = torch.einsum("pij,pj->pi", gram[rows], now)
        lowest, leader = slopes.masked_fill(mask, torch.inf).min(1)
        open_ = arrived & ((now * slopes).sum(1) - lowest > GAP)
        # in exact arithmetic a point that has just entered is never dropped: rounding is all that is left to gain
        futile = ~arrived & (way.squeeze(1) == 0) & dropped.gather(1, entered[rows].clamp(min=0)[:, None]).squeeze(1)
        mask[open_, leader[open_]] = True
        entered[rows[open_]] = leader[open_]
        coefficients[rows], support[rows] = now, mask
        rows = rows[(open_ | ~arrived) & ~futile]


def _affine(gram: Tensor, mask: Tensor) -> Tensor:
    """The minimisers of c' G c whose entries sum to 1 and are zero outside of a mask, whatever their signs.

    One added to all entries of G adds a constant, and makes the system regular for any points in general position.
    """
    k = gram.shape[-1]
    inside = mask[:, :, None] & mask[:, None, :]
    ridge = 1e-14 * torch.eye(k, dtype=gram.dtype, device=gram.device)
    system = torch.where(inside, gram + 1, 0.0) + ridge + torch.diag_embed((~mask).to(gram.dtype))
    solution: Tensor = torch.linalg.solve_ex(system, mask.to(gram.dtype)).result * mask
    return solution / solution.sum(1, keepdim=True)
