"""Caps of the sphere, in logarithms: their measure, and their radius.

A cap of radius r is all points of the unit sphere S^(n-1) within the angle r of one point. Among all sets of a measure
a cap grows least when all points within epsilon of it are added (Lévy 1951), which is why bounds are about caps.
Measures are relative to the whole sphere, angles in radians, from 0 to pi.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, gammaln

LEAST = 1e-280
"""measures below are computed by the series, since the incomplete beta function would run out of float64"""
TERMS = 4096
"""of the series, summed at once"""
LEAST_RADIUS = 1e-300


def log_measure(radius: float, n: int) -> float:
    """The logarithm of the measure of a cap on S^(n-1), n at least 2. radius: below 0 there is none, from pi on all.

    mu(r) = I_{sin^2 r}((n - 1) / 2, 1/2) / 2 up to pi/2, and 1 - mu(pi - r) beyond. To a relative 1e-11 or so of the
    measure for n up to a million.
    """
    if radius <= 0:
        return -math.inf
    if radius >= math.pi:
        return 0.0
    if radius > math.pi / 2:
        return math.log1p(-math.exp(log_measure(math.pi - radius, n)))
    a, cosine, sine = (n - 1) / 2, math.cos(radius), math.sin(radius)
    # I_x(a, b) = 1 - I_{1-x}(b, a): by the argument that is not rounded to 1
    direct = float(betainc(a, 0.5, sine**2) if sine < cosine else betaincc(0.5, a, cosine**2))
    if direct > LEAST:
        return math.log(direct / 2)
    log_sine = math.log(sine) if sine < 0.5 else math.log1p(-(cosine**2)) / 2
    return 2 * a * log_sine + math.log(cosine) - math.log(2 * a) - log_beta_half(a) + _log_series(a, sine**2)


def radius(log_share: float, n: int) -> float:
    """The radius of the cap on S^(n-1) with a measure whose logarithm is given, at most 0; -infinity: 0."""
    if log_share >= 0:
        return math.pi
    if log_share > math.log(0.5):
        return math.pi - radius(math.log(-math.expm1(log_share)), n)
    if log_share <= log_measure(LEAST_RADIUS, n):
        return 0.0

    def excess(log_radius: float) -> float:
        return log_measure(math.exp(log_radius), n) - log_share

    # the logarithm of the measure is nearly linear in that of the radius
    low, high = math.log(LEAST_RADIUS), math.log(math.pi / 2) + 1e-15
    return math.exp(brentq(excess, low, high, xtol=1e-15, rtol=4 * np.finfo(float).eps, maxiter=500))


def log_beta_half(a: float) -> float:
    """log B(a, 1/2) = log Gamma(1/2) - log(Gamma(a + 1/2) / Gamma(a)), without the cancellation of large logarithms.

    Source: the asymptotic series of the ratio of gamma functions, DLMF 5.11.13.
    """
    if a < 10:
        return float(math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5))
    b = 1 / a
    ratio = 0.5 * math.log(a) - b / 8 + b**3 / 192 - b**5 / 640 + 17 * b**7 / 14336 - 31 * b**9 / 18432
    return 0.5 * math.log(math.pi) - ratio


def log_sphere_area(n: int) -> float:
    """log s_(n-1), the surface of S^(n-1): log 2 + (n/2) log pi - log Gamma(n/2)."""
    return math.log(2) + n / 2 * math.log(math.pi) - float(gammaln(n / 2))


def log_ball_volume(n: int) -> float:
    """log V_n, the volume of the unit ball of R^n: (n/2) log pi - log Gamma(n/2 + 1)."""
    return n / 2 * math.log(math.pi) - float(gammaln(n / 2 + 1))


def _log_series(a: float, x: float) -> float:
    """log of the sum over k of prod_{j<k} (a + 1/2 + j) / (a + 1 + j) x^k, all terms positive.

    It is I_x(a, 1/2) B(a, 1/2) a / (x^a (1 - x)^(1/2)), 2F1(a + 1/2, 1; a + 1; x). About 40 / (1 - x) terms.
    Source: DLMF 8.17.8.
    """
    total, term, first = 0.0, 1.0, 0
    while term > 1e-17 * total:
        j: NDArray[np.float64] = np.arange(first, first + TERMS, dtype=np.float64)
        terms = term * np.cumprod((a + 0.5 + j) / (a + 1 + j) * x)
        total += term + float(terms[:-1].sum())
        term, first = float(terms[-1]), first + TERMS
    return math.log(total + term)
