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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jobs.inevitability.concentration.regions import TIE, HalfSpace, blocks

COLUMNS = 64  # directions that are projected on at once
PART = 4096  # points at a time in float64
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
    search = _Search(points, components, p, errors, epsilons)
    search.climb(math.inf if exponents else 1.0)
    search.settle()
    if exponents:
        search.refine()
    return [best and search.fit(place, best) for place, best in enumerate(search.best)]


@dataclass(frozen=True)
class _Bounds:
    """How many points the expansion for each epsilon holds at least and at most: int64 (epsilons,)."""

    low: np.ndarray
    high: np.ndarray


class _Best(NamedTuple):
    adversarial: int
    component: int
    exponent: float


@dataclass(frozen=True)
class _Outcome:
    """(epsilons,) each, of the better of both signs of a direction."""

    counts: np.ndarray
    signs: np.ndarray
    offsets: np.ndarray


class _Search:
    """The search over powers. Projections are in float32, which bounds the counts; those that matter are in float64."""

    def __init__(
        self, points: Tensor, components: Components, p: float, errors: int, epsilons: Sequence[float]
    ) -> None:
        self.pixels = points.T.float().contiguous()  # (d, n)
        self.components, self.p, self.errors = components, p, errors
        self.epsilons = np.asarray(epsilons, np.float64)
        # a sum of d products of float32 misses by less than (d + 3) roundings of |x| |w|, at most the norm of x in L_p
        length = max(float(torch.linalg.vector_norm(block, p, 1).max()) for block in blocks(points))
        self.rounding = (points.shape[1] + 3) * torch.finfo(torch.float32).eps / 2 * length
        self.known: dict[tuple[int, float], _Outcome] = {}
        shape = len(epsilons), len(components)
        self.low, self.high = np.full((2, *shape), len(points) + 1)
        """int64 (epsilons, components): bounds of the count of the best of 1, 11, 21, ..."""
        self.exponents = np.ones(shape)
        """which of them it is"""
        self.best: list[_Best | None] = [None] * len(epsilons)

    def climb(self, most: float) -> None:
        """Try powers of exponent 1, 11, 21, ...: of each component and for each epsilon until one does not help."""
        exponent = 1.0
        climbing = np.ones(self.low.shape, bool)
        while climbing.any() and exponent <= most:
            active = np.flatnonzero(climbing.any(0))
            for chosen in np.split(active, range(COLUMNS, len(active), COLUMNS)):
                directions = torch.cat([self._powers(component, [exponent]) for component in chosen], 1)
                for component, bounds in zip(chosen.tolist(), self._bounds(directions), strict=True):
                    for place in np.flatnonzero(climbing[:, component]).tolist():
                        climbing[place, component] = self._improves(place, component, exponent, bounds)
            exponent += STRIDE

    def settle(self) -> None:
        """Find the best component for each epsilon, of the powers tried so far."""
        for place, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            for component in np.flatnonzero(low <= high.min(initial=len(self.pixels[0]))).tolist():
                self._challenge(place, component, float(self.exponents[place, component]))

    def refine(self) -> None:
        """Try the powers around the best of each component."""
        for component in range(len(self.components)):
            around = [_around(best) for best in self.exponents[:, component]]
            exponents = sorted(set().union(*around))
            for exponent, bounds in zip(exponents, self._bounds(self._powers(component, exponents)), strict=True):
                for place, best in enumerate(self.best):
                    if best is not None and exponent in around[place] and bounds.low[place] <= best.adversarial:
                        self._challenge(place, component, exponent)

    def fit(self, place: int, best: "_Best") -> Fit:
        """For the epsilon at a place."""
        outcome = self._outcome(best.component, best.exponent)
        sign = int(outcome.signs[place])
        normal = sign * self._powers(best.component, [best.exponent]).squeeze(1)
        region = HalfSpace(normal, float(outcome.offsets[place]))
        return Fit(region, best.component, best.exponent, sign, best.adversarial)

    def _challenge(self, place: int, component: int, exponent: float) -> None:
        """Count a power exactly, and keep it if it is better than the best so far, or as good and of an earlier one."""
        count = int(self._outcome(component, exponent).counts[place])
        best = self.best[place]
        if best is None or (count, component) < (best.adversarial, best.component):
            self.best[place] = _Best(count, component, exponent)

    def _improves(self, place: int, component: int, exponent: float, bounds: _Bounds) -> bool:
        """Whether a power is better for an epsilon than the best before, which it then is."""
        low, high = int(bounds.low[place]), int(bounds.high[place])
        if low < self.high[place, component] and high >= self.low[place, component]:  # float32 does not tell
            low = high = int(self._outcome(component, exponent).counts[place])
            before = self._outcome(component, self.exponents[place, component]).counts[place]
            self.low[place, component] = self.high[place, component] = before
        if high >= self.low[place, component]:
            return False
        self.low[place, component], self.high[place, component] = low, high
        self.exponents[place, component] = exponent
        return True

    def _powers(self, component: int, exponents: Sequence[float]) -> Tensor:
        return powers(self.components.directions[:, component], exponents, self.p)

    def _bounds(self, directions: Tensor) -> list[_Bounds]:
        """What the smallest half-spaces across directions, (d, m), hold within each epsilon."""
        used = directions.any(1)
        # where most pixels are used, to pick them costs more than it saves
        pixels = self.pixels if 2 * int(used.sum()) > len(used) else self.pixels[used]
        directions = directions if pixels is self.pixels else directions[used]
        rows = (directions.T.float() @ pixels).numpy()  # (m, n)
        rows.sort(axis=1)
        # both the boundary and a projection miss by as much
        near, far = (self.epsilons + TIE + side * 2 * self.rounding for side in (-1, 1))
        return [_Bounds(_counts(row, self.errors, near).min(0), _counts(row, self.errors, far).min(0)) for row in rows]

    def _outcome(self, component: int, exponent: float) -> _Outcome:
        """The same for one power, in float64."""
        if (component, exponent) not in self.known:
            direction = self._powers(component, [exponent]).squeeze(1)
            used = direction != 0
            parts = [self.pixels[:, first : first + PART] for first in range(0, self.pixels.shape[1], PART)]
            row = torch.cat([direction[used] @ part[used].double() for part in parts]).sort().values.numpy()
            forward, backward = _counts(row, self.errors, self.epsilons + TIE)
            signs = np.where(backward < forward, -1, 1)
            offsets = np.where(signs > 0, row[self.errors - 1], -row[-self.errors])
            self.known[component, exponent] = _Outcome(np.minimum(forward, backward), signs, offsets)
        return self.known[component, exponent]


def _counts(projections: np.ndarray, errors: int, reaches: np.ndarray) -> np.ndarray:
    """How many points lie within each reach of the smallest half-spaces with `errors` points at both ends.

    projections: (n,), ascending. Returns int64 (2, reaches); at least `errors`, also for a reach below 0.
    """
    low, high = float(projections[errors - 1]), float(projections[-errors])
    forward = projections.searchsorted(np.asarray(low + reaches, projections.dtype), "right")
    backward = len(projections) - projections.searchsorted(np.asarray(high - reaches, projections.dtype), "left")
    return np.maximum([forward, backward], errors)


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
