"""The half-space of a given mass that gains the least when it is expanded (Prescott et al. 2021, "Improved Estimation
of Concentration Under Lp-Norm Distance Metrics Using Half Spaces").

Expanding {x: w·x at most b} by epsilon in L_p gives {x: w·x at most b + epsilon}, if w has length 1 in the dual norm.
So for each direction w the best half-space is that whose b is a quantile of w·x. The directions are all principal
components with both signs, and their powers sign(v) |v|^t, which for large t point along few pixels, as suits Linf.
For a Gaussian some half-space has the least expansion of all sets (Gaussian isoperimetry).

One product projects on many directions, and one sorted row of projections answers for both signs and every epsilon.
Powers have few entries that are not negligible, so the product takes few pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.inevitability.concentration.regions import TIE, HalfSpace, blocks

COLUMNS = 64  # directions that are projected on at once
NEGLIGIBLE = 1e-5  # of the largest entry of a direction
CONSTANT = 1e-10  # the share of the largest variance below which a component is none: rounding of constant pixels
STRIDE = 10.0  # from one power to the next, until powers stop to help


@dataclass(frozen=True)
class Components:
    """The principal components of points, the largest variance first; those along which nothing varies are left out."""

    directions: Tensor
    """float64 (d, components), of length 1 in L2; the largest entry of each is positive"""
    variances: Tensor
    """float64 (components,)"""

    def __len__(self) -> int:
        return len(self.variances)

    def first(self, count: int) -> "Components":
        """Those with the largest variances."""
        return Components(self.directions[:, :count], self.variances[:count])


@dataclass(frozen=True)
class Fit:
    """The best half-space for one epsilon, and how it was reached."""

    region: HalfSpace
    component: int
    """its place by variance, from 0"""
    exponent: float
    sign: int
    """1: the mass lies at the small end of the component; -1: at the large end"""
    adversarial: int
    """points of the fit in the expanded region"""


def principal_components(points: Tensor) -> Components:
    """points: float (n, d), n at least 2. Without any variance there is no component."""
    mean = torch.zeros(points.shape[1], dtype=torch.float64)
    for block in blocks(points):
        mean += block.double().sum(0)
    mean /= len(points)
    covariance = torch.zeros(points.shape[1], points.shape[1], dtype=torch.float64)
    for block in blocks(points):
        centred = block.double() - mean
        covariance.addmm_(centred.T, centred)
    covariance /= len(points)
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0), directions.flip(1)
    kept = variances > CONSTANT * variances[0].clamp(min=torch.finfo(torch.float64).tiny)
    variances, directions = variances[kept], directions[:, kept]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return Components(directions * largest.sign(), variances)


def powers(direction: Tensor, exponents: Sequence[float], p: float) -> Tensor:
    """sign(w) |w|^t for each exponent t, of length 1 in the dual norm of L_p: float64 (d, exponents).

    direction: float64 (d,). Entries below NEGLIGIBLE of the largest are 0.
    """
    relative = (direction.abs() / direction.abs().amax())[:, None]  # so that the largest does not underflow
    magnitudes = relative ** torch.tensor(exponents, dtype=torch.float64)
    magnitudes = magnitudes.where(magnitudes >= NEGLIGIBLE, 0.0)
    return _unit(direction.sign()[:, None] * magnitudes, p)


def search(
    points: Tensor, components: Components, p: float, errors: int, epsilons: Sequence[float], exponents: bool = True
) -> list[Fit | None]:
    """The half-space with at least `errors` points whose expansion has the fewest, for each epsilon.

    points: float (n, d). p: of the norm, at least 1. exponents: whether to go beyond the components themselves, along
    each component on its own: 1, 11, 21, ... while that helps, then powers around the best. Of equal ones the first by
    component, then by exponent. None where there is no component, because no pixel varies.
    """
    tried = _Search(points, components, p, errors, epsilons)
    tried.climb(most=math.inf if exponents else 1.0)
    if exponents:
        tried.refine()
    return [tried.best(place) for place in range(len(epsilons))]


class _Search:
    """What is known of each component: the best of its powers so far, for each epsilon."""

    def __init__(
        self, points: Tensor, components: Components, p: float, errors: int, epsilons: Sequence[float]
    ) -> None:
        self.pixels = points.T.double()  # (d, n)
        self.components, self.p, self.errors = components, p, errors
        self.epsilons = np.asarray(epsilons, np.float64)
        shape = len(epsilons), len(components)
        self.counts = np.full(shape, len(points) + 1)
        """int64 (epsilons, components): points in the expansion; one more than there are before any is known"""
        self.exponents = np.ones(shape)
        self.signs = np.ones(shape, np.int64)
        self.offsets = np.zeros(shape)

    def climb(self, most: float) -> None:
        """Try powers of exponent 1, 11, 21, ...: of each component and for each epsilon until one does not help."""
        exponent = 1.0
        climbing = np.ones(self.counts.shape, bool)
        while climbing.any() and exponent <= most:
            active = np.flatnonzero(climbing.any(0))
            for chosen in np.split(active, range(COLUMNS, len(active), COLUMNS)):
                directions = [self._powers(component, [exponent]) for component in chosen]
                outcomes = self._expansions(torch.cat(directions, 1))
                for component, outcome in zip(chosen, outcomes, strict=True):
                    climbing[:, component] &= self._keep(component, exponent, outcome, climbing[:, component])
            exponent += STRIDE

    def refine(self) -> None:
        """Try the powers around the best of each component."""
        for component in range(len(self.components)):
            around = [_around(best) for best in self.exponents[:, component]]
            exponents = sorted(set().union(*around))
            outcomes = self._expansions(self._powers(component, exponents))
            for exponent, outcome in zip(exponents, outcomes, strict=True):
                self._keep(component, exponent, outcome, np.array([exponent in each for each in around]))

    def best(self, place: int) -> Fit | None:
        """For the epsilon at a place."""
        if not len(self.components):
            return None
        component = int(self.counts[place].argmin())
        exponent, sign = float(self.exponents[place, component]), int(self.signs[place, component])
        normal = sign * self._powers(component, [exponent]).squeeze(1)
        region = HalfSpace(normal, float(self.offsets[place, component]))
        return Fit(region, component, exponent, sign, int(self.counts[place, component]))

    def _powers(self, component: int, exponents: Sequence[float]) -> Tensor:
        return powers(self.components.directions[:, component], exponents, self.p)

    def _keep(self, component: int, exponent: float, outcome: "_Outcome", due: np.ndarray) -> np.ndarray:
        """Take over what is better, of the epsilons that are due. Returns for which it is: bool (epsilons,)."""
        better = np.asarray(due & (outcome.counts < self.counts[:, component]))
        self.exponents[better, component] = exponent
        self.counts[better, component] = outcome.counts[better]
        self.signs[better, component] = outcome.signs[better]
        self.offsets[better, component] = outcome.offsets[better]
        return better

    def _expansions(self, directions: Tensor) -> list["_Outcome"]:
        """What the smallest half-spaces across directions, (d, m), hold within each epsilon."""
        used = directions.any(1)
        if 2 * int(used.sum()) > len(used):  # picking rows costs more than it saves
            projections = directions.T @ self.pixels
        else:
            projections = directions[used].T @ self.pixels[used]
        rows = projections.numpy()  # (m, n)
        rows.sort(axis=1)
        return [_outcome(row, self.errors, self.epsilons) for row in rows]


@dataclass(frozen=True)
class _Outcome:
    """(epsilons,) each, of the better of both signs of a direction."""

    counts: np.ndarray
    signs: np.ndarray
    offsets: np.ndarray


def _outcome(projections: np.ndarray, errors: int, epsilons: np.ndarray) -> _Outcome:
    """How many points lie within each epsilon of the smallest half-spaces with `errors` points at both ends.

    projections: float64 (n,), ascending.
    """
    low, high = projections[errors - 1], projections[-errors]
    forward = projections.searchsorted(low + epsilons + TIE, "right")
    backward = len(projections) - projections.searchsorted(high - epsilons - TIE, "left")
    signs = np.where(backward < forward, -1, 1)
    return _Outcome(np.minimum(forward, backward), signs, np.where(signs > 0, low, -high))


def _unit(directions: Tensor, p: float) -> Tensor:
    """Each column scaled to length 1 in the dual norm of L_p."""
    dual = math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)
    lengths: Tensor = torch.linalg.vector_norm(directions, dual, 0)
    return directions / lengths


def _around(exponent: float) -> list[float]:
    """The exponents tried around the best of 1, 11, 21, ..."""
    if exponent == 1.0:
        return [1.0 + 0.5 * step for step in range(1, 20)]
    return [exponent + step for step in range(-9, 10) if step]
