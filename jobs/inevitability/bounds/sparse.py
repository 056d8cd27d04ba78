"""The bound for changes of few pixels (L0)."""

import math
from dataclasses import dataclass

import numpy as np

from jobs.inevitability.bounds.base import DensityBound, Radii, Values
from service.errors import FieldError


@dataclass(frozen=True, kw_only=True)
class SparseBound(DensityBound):
    """Points of [0, 1]^n with the number of coordinates that differ as their distance; epsilon is that number, k.

    With U_c the peak of the density of the class and f its share of the cube, robust accuracy at k is at most

        sharp:  U_c exp(-2 (k - s)^2 / n) for k >= s = sqrt(n log(1 / (1 - f)) / 2)      McDiarmid
        paper:  2 U_c exp(-k^2 / n)                                                      Talagrand, for f <= 1/2

    The sharp form holds since the distance from a set of volume 1 - f is Lipschitz in every coordinate, and its mean is
    at most s. It is never above the other: their exponents differ by (k - 2 s)^2 / n at f = 1/2, by more below. Each
    pixel of an image in colour has three coordinates here.
    Source: Shafahi et al. 2019 ("Are adversarial examples inevitable?"), theorem 3; Talagrand 1995; McDiarmid 1989.
    """

    @property
    def space(self) -> str:
        return "the cube in L0"

    @property
    def diameter(self) -> float:
        return float(self.n)

    def _epsilon_of(self, log_tail: float) -> float:
        """The least whole k: here the first with a ceiling below it, not one beyond which it is."""
        if self.form == "paper":
            start = math.sqrt(self.n * (math.log(2) - log_tail))
        else:
            start = math.sqrt(-self.n * log_tail / 2) + self._mean_distance
        k = max(0, math.floor(start) - 1)
        while float(self._log_tail(np.array(float(k)))) >= log_tail:  # at most three steps
            k += 1
        return float(k)

    def _log_tail(self, epsilons: Values) -> Values:
        if self.form == "paper":
            return math.log(2) - epsilons**2 / self.n
        return -2 * np.maximum(epsilons - self._mean_distance, 0.0) ** 2 / self.n

    @property
    def _mean_distance(self) -> float:
        """s: the largest mean distance from the other classes."""
        return math.sqrt(-self.n * math.log1p(-self.share) / 2)

    def _checked(self, epsilons: Radii) -> Values:
        radii = super()._checked(epsilons)
        broken = radii[radii != np.floor(radii)]
        if broken.size:
            raise FieldError("epsilon", "be a whole number of pixels", float(broken.flat[0]))
        return radii
