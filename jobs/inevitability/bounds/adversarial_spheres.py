"""Concentric spheres: a task of which the largest possible distance to an error is known exactly.

Two classes are the spheres of radius 1 and R in R^n, R about 1.3. Let a classifier be wrong on a share mu of one of
them. Of all sets of that measure a cap is on average the farthest from the points of its sphere. A classifier whose
mean distance to an error is measured to be larger was measured wrongly.

Source: Gilmer et al. 2018 ("Adversarial spheres"), theorem 5.1, which gives -Phi^-1(mu) / sqrt(n) for large n. Here it
is the exact integral.
"""

import math

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtri
from torch import Tensor

from jobs.inevitability.bounds import caps
from jobs.inevitability.bounds.base import check_dimension
from jobs.inevitability.bounds.shares import random_points
from jobs.inevitability.bounds.sphere import Metric
from service.errors import FieldError

INNER, OUTER = 1.0, 1.3
"""radii of the paper"""
NODES = 64
"""of each piece of the integral"""


def mean_distance_ceiling(error: float, n: int, radius: float = INNER, metric: Metric = "chord") -> float:
    """The largest mean distance from uniform points of a sphere to a set of measure `error` on it, in R^n.

    Points in the set have distance 0 and count. For the mean over the other points divide by 1 - error. radius: of the
    sphere, in whose units the distance is. error: above 0, below 1. Exact but for rounding: with r the radius of the
    cap of that measure, the mean of max(0, angle - r), or of 2 sin(max(0, angle - r) / 2), over the angles
    from its centre. FieldError: an error or a radius out of range, n below 2.
    """
    check_dimension(n, 2)
    if not 0 < error < 1:
        raise FieldError("error", "be above 0 and below 1, the share of the sphere that is misclassified", error)
    _check_radius(radius)
    return radius * _mean_distance(math.log(error), n, metric)


def gaussian_ceiling(error: float, n: int, radius: float = INNER) -> float:
    """The approximation of the paper for large n: -Phi^-1(error) / sqrt(n) times the radius."""
    return -float(ndtri(error)) / math.sqrt(n) * radius


def largest_error(mean_distance: float, n: int, radius: float = INNER, metric: Metric = "chord") -> float:
    """The largest share of errors of any classifier with this mean distance to an error: 0 where it is below 1e-300.

    It is the share of which the distance is the ceiling, as a larger share has a smaller ceiling. See
    `mean_distance_ceiling`.
    """
    check_dimension(n, 2)
    _check_radius(radius)
    largest = (math.pi if metric == "geodesic" else 2.0) * radius
    if not 0 < mean_distance < largest:
        requirement = f"be above 0 and below {largest:.6g}, the diameter of the sphere"
        raise FieldError("mean_distance", requirement, mean_distance)

    def excess(log_error: float) -> float:
        return _mean_distance(log_error, n, metric) * radius - mean_distance

    lowest = math.log(1e-300)
    if excess(lowest) < 0:
        return 0.0
    return math.exp(brentq(excess, lowest, -1e-15, xtol=1e-12))


def points(count: int, n: int, radius: float, generator: torch.Generator) -> Tensor:
    """Uniform points of a sphere around 0 in R^n, float32: (count, n)."""
    check_dimension(n, 2)
    _check_radius(radius)
    return random_points(count, (n,), generator, "sphere") * radius


def _mean_distance(log_error: float, n: int, metric: Metric) -> float:
    """On the unit sphere: the integral from r to pi of d'(angle - r) mu(pi - angle), mu the measure of a cap."""
    start = caps.radius(log_error, n)
    # mu(pi - angle) falls from 1 to 0 around pi/2, over a few times 1/sqrt(n)
    width = 12 / math.sqrt(n)
    inner = [math.pi / 2 + width * step for step in (-1, -0.5, 0, 0.5, 1)]
    ends = [start, *(end for end in inner if start < end < math.pi), math.pi]
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = 0.0
    for low, high in zip(ends, ends[1:], strict=False):
        angles = (high + low) / 2 + (high - low) / 2 * nodes
        rest = np.array([math.exp(caps.log_measure(math.pi - angle, n)) for angle in angles])
        slope = np.cos((angles - start) / 2) if metric == "chord" else 1.0
        total += (high - low) / 2 * float((weights * rest * slope).sum())
    return total


def _check_radius(radius: float) -> None:
    if not (radius > 0 and math.isfinite(radius)):
        raise FieldError("radius", "be above 0 and finite", radius)
