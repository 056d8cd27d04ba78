"""A union of balls of a given mass that gains little when it is expanded: Mahloujifar et al. 2019, "Empirically
Measuring Concentration", section 4; with label uncertainty Zhang & Evans 2022, "Understanding Intrinsic Robustness
Using Label Uncertainty".

The balls are placed one after another. The t-th of T covers at least its part, 1/(T - t + 1), of the points that are
still to be covered and at most all of them; its centre is one of the given points and its radius the distance to a
point. Of all such balls that with the least growth is taken: the points that the expansion newly reaches, less those
that the ball newly covers. With label uncertainty only balls count whose newly covered points have an average of at
least gamma.

The distances from the centres are sorted once and serve every ball, number of balls and epsilon.
"""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from jobs.inevitability.concentration.distances import lengths
from jobs.inevitability.concentration.regions import TIE, BallUnion

ROWS = 32  # centres at a time


@dataclass(frozen=True)
class Neighbourhoods:
    """The points around each centre, the nearest first."""

    centres: Tensor
    """float (m, d)"""
    distances: Tensor
    """float32 (m, n), ascending"""
    order: Tensor
    """int32 (m, n): which point each of them is; of equal ones the first"""
    p: float


@dataclass(frozen=True)
class Fit:
    """The balls placed for one epsilon."""

    region: BallUnion
    errors: int
    """points of the fit in the balls"""
    adversarial: int
    """points of the fit in the expanded balls"""


@dataclass(frozen=True)
class Uncertainty:
    """That the labels in the region must be uncertain on average."""

    values: Tensor
    """float (n,) in [0, 2], of each point"""
    least: float
    """gamma"""


def neighbourhoods(points: Tensor, rows: Tensor, p: float) -> Neighbourhoods:
    """points: float (n, d). rows: int64 (m,), which of them are centres. Takes 8 n m bytes. p: 2, inf or 1."""
    shape = len(rows), len(points)
    distances, order = torch.empty(shape), torch.empty(shape, dtype=torch.int32)
    centres = points[rows]
    if p == 2:
        points = points - points.mean(0)  # less is lost where squares of long vectors are taken from each other
    for first in range(0, len(rows), ROWS):
        here = slice(first, first + ROWS)
        distances[here], block = lengths(points[rows[here]], points, p).sort(dim=1, stable=True)
        order[here] = block
    return Neighbourhoods(centres, distances, order, p)


def search(
    around: Neighbourhoods, balls: int, errors: int, epsilon: float, uncertainty: Uncertainty | None = None
) -> Fit | None:
    """Place up to so many balls that cover `errors` points. None: no ball is uncertain enough.

    Of balls with the same growth the first by centre, then the smallest.
    """
    count = around.distances.shape[1]
    covered, reached = torch.zeros(2, count, dtype=torch.bool)
    centres, radii = [], []
    for left in range(balls, 0, -1):
        due = errors - int(covered.sum())
        if due <= 0:
            break
        best = _best(around, covered, reached, (ceil(due / left), due), epsilon, uncertainty)
        if best is None:
            return None
        centre, radius = best
        distances, order = around.distances[centre], around.order[centre].long()
        covered[order[distances <= _bound(radius)]] = True
        reached[order[distances <= _bound(radius) + epsilon]] = True
        centres.append(centre)
        radii.append(float(radius))
    region = BallUnion(around.centres[centres].double(), torch.tensor(radii, dtype=torch.float64), around.p)
    return Fit(region, int(covered.sum()), int(reached.sum()))


def _best(
    around: Neighbourhoods,
    covered: Tensor,
    reached: Tensor,
    sizes: tuple[int, int],
    epsilon: float,
    uncertainty: Uncertainty | None,
) -> tuple[int, Tensor] | None:
    """The centre, and the radius as a float32 scalar, of the ball with the least growth.

    sizes: the fewest and the most points that it may newly cover, before ties.
    """
    fewest, most = sizes
    near = min(len(covered), int(covered.sum()) + most)  # among so many there are enough that are not covered
    least, best = len(covered) + 1, None
    for first in range(0, len(around.distances), ROWS):
        here = slice(first, first + ROWS)
        distances = around.distances[here]
        far = int((distances <= _bound(distances[:, near - 1 : near]) + epsilon).sum(1).max())
        distances, order = distances[:, :far].contiguous(), around.order[here, :far].long()
        fresh = ~covered[order]
        new = fresh.cumsum(1)
        place = torch.searchsorted(new, torch.arange(fewest, most + 1).expand(len(new), -1).contiguous())
        radii = distances.gather(1, place)  # (rows, sizes)
        last = torch.searchsorted(distances, _bound(radii), right=True) - 1
        reach = torch.searchsorted(distances, _bound(radii) + epsilon, right=True) - 1
        inside = new.gather(1, last)
        growth = (~reached[order]).cumsum(1).gather(1, reach) - inside
        if uncertainty is not None:
            sums = (uncertainty.values.double()[order] * fresh).cumsum(1).gather(1, last)
            growth = growth.where(sums >= uncertainty.least * inside - TIE, len(covered) + 1)
        row, size = divmod(int(growth.argmin()), growth.shape[1])
        if (value := int(growth[row, size])) < least:
            least, best = value, (first + row, radii[row, size])
    return best


def _bound(radii: Tensor) -> Tensor:
    """Float32 radii with what makes distances equal to them count as within: that of `BallUnion`."""
    return radii * (1 + TIE) + TIE
