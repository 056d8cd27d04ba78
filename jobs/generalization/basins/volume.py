"""Volumes of basins from the radii of rays, in logarithms: in a thousand dimensions none of them is a float.

All logarithms are natural and in float64. Radii are those of the coordinates of `rays`.

Sources: Huang et al. 2020, section 5; Scherlis & Belrose 2025, "Estimating the Probability of Sampling a Trained Neural
Network at Random", section 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp, roots_legendre

RESAMPLES = 1000
CONFIDENCE = 0.95
DOMINANCE = 0.5  # share of the sum from which one ray carries it
NODES = 128  # of a quadrature
NEGLIGIBLE = 45.0  # e^-45 of an integrand's maximum is nothing in float64


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def log_ball(n: int) -> float:
    """The log of the volume of the unit ball in n dimensions: (n/2) ln pi - ln Gamma(1 + n/2)."""
    return 0.5 * n * math.log(math.pi) - float(gammaln(1 + n / 2))


def log_volumes(radius: np.ndarray, n: int) -> np.ndarray:
    """ln(omega_n r^n) of each ray, the volume if all rays were like it. radius: float64 (rays,)."""
    volumes: np.ndarray = log_ball(n) + n * np.log(radius)
    return volumes


def log_mean(logs: np.ndarray) -> np.ndarray:
    """The log of the mean of numbers that are given by their logs, over the last axis."""
    mean: np.ndarray = logsumexp(logs, axis=-1) - math.log(logs.shape[-1])
    return mean


def largest_share(logs: np.ndarray) -> float:
    """Of the sum of numbers that are given by their logs, what the largest alone makes up, in (0, 1]."""
    return float(np.exp(logs.max() - logsumexp(logs)))


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], rays: int, seed: int) -> Interval:
    """A statistic of the rays, with the percentiles of it over resamples of them.

    statistic: numbers of rays, int64 (..., rays) -> (...). Where one ray dominates a mean, resamples know no larger one
    either: the interval is then too narrow on the side of large volumes.
    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    stream = np.random.default_rng(seed)
    resampled = statistic(stream.integers(rays, size=(RESAMPLES, rays)))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, (tail, 100 - tail))
    return Interval(float(statistic(np.arange(rays))), float(low), float(high))


def log_prior_masses(
    radius: np.ndarray, n: int, lengths: np.ndarray, slopes: np.ndarray, square: float, deviation: float
) -> np.ndarray:
    """The log of what the mass of a Gaussian prior would be if all rays were like each: its integral along the ray.

    The prior is N(0, deviation^2) for each of n weights, and the weights on a ray are w + t d:
    ln(n omega_n) + ln of the integral of t^(n-1) p(w + t d) over t from 0 to r. (For a mass of the weights, add the log
    of the determinant that maps the coordinates of the rays to weights.)
    The integrand is log-concave in t. It is integrated by Gauss-Legendre nodes on either side of its maximum, each as
    far as it is not negligible; without w it is the incomplete gamma function.
    radius, lengths ||d||, slopes w . d: float64 (rays,). square: ||w||^2.
    """
    variance = deviation**2
    a, b = lengths**2 / variance, slopes / variance

    def log_integrand(t: np.ndarray) -> np.ndarray:
        values: np.ndarray = -0.5 * t * (a[:, None] * t + 2 * b[:, None])
        return values + (n - 1) * np.log(t) if n > 1 else values

    peak = (np.sqrt(b**2 + 4 * a * (n - 1)) - b) / (2 * a)  # where the derivative of the log is zero
    top = np.clip(peak, radius * 1e-12, radius)
    slope = (n - 1) / top - a * top - b
    left = np.minimum(top, _reach(np.maximum(slope, 0), (n - 1) / top**2 + a))  # the curvature grows towards 0
    right = np.minimum(radius - top, _reach(np.maximum(-slope, 0), a))
    nodes, weights = roots_legendre(NODES)
    share = (nodes + 1) / 2
    parts = []
    for begin, width in ((top - left, left), (top, right)):
        t = begin[:, None] + width[:, None] * share
        with np.errstate(divide="ignore"):  # a part of width 0 has no mass
            parts.append(logsumexp(log_integrand(t), axis=1, b=weights / 2) + np.log(width))
    density = -0.5 * n * math.log(2 * math.pi * variance) - 0.5 * square / variance
    masses: np.ndarray = math.log(n) + log_ball(n) + density + np.logaddexp(*parts)
    return masses


def _reach(slope: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """How far from its maximum a log-concave function has fallen by NEGLIGIBLE, if it bends down at least so much."""
    reach: np.ndarray = (np.sqrt(slope**2 + 2 * NEGLIGIBLE * curvature) - slope) / curvature
    return reach
