"""The bound on the cube, for distances in Lp."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtri, ndtri_exp, wrightomega

from jobs.inevitability.bounds.base import DensityBound, Values
from service.errors import FieldError

LOG_SCALE = math.log(2 * math.pi) / 2
"""log of sqrt(2 pi), 1 over the Lipschitz constant of Phi, which takes Gaussian points to uniform ones"""


@dataclass(frozen=True, kw_only=True)
class CubeBound(DensityBound):
    """Points of [0, 1]^n with distances in Lp, p above 0, infinity included; below 1 it is no norm.

    With U_c the peak of the density of the class, f its share of the cube, p* = min(p, 2), kappa = n^(1/2 - 1/p*) and
    Phi the distribution function of N(0, 1), robust accuracy at epsilon is at most

        sharp:  U_c Phi(-(Phi^-1(1 - f) + sqrt(2 pi) kappa epsilon))
        paper:  U_c exp(-pi (kappa epsilon)^2) / (2 pi kappa epsilon)         for f <= 1/2

    The sharp form is below the paper's at every epsilon. From p = 2 on kappa is 1: n is in neither but through U_c.
    Source: Shafahi et al. 2019 ("Are adversarial examples inevitable?"), theorem 2 and lemma 2, by the isoperimetric
    inequality of Gaussian space (Sudakov & Tsirelson 1974; Borell 1975).
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.p > 0:  # NaN is not either
            raise FieldError("p", "be above 0, infinity included; of L0 there is a bound of its own", self.p)

    @property
    def space(self) -> str:
        return f"the cube in L{'inf' if math.isinf(self.p) else f'{self.p:g}'}"

    @property
    def diameter(self) -> float:
        """n^(1/p), as far as float64 goes."""
        try:
            return math.pow(self.n, 1 / self.p)
        except OverflowError:
            return math.inf

    def _epsilon_of(self, log_tail: float) -> float:
        if self.form == "sharp":
            distance = -float(ndtri_exp(log_tail))
            reach = distance - self._start  # from where the class begins
            return _exp(math.log(reach) - LOG_SCALE - self._log_kappa) if reach > 0 else 0.0
        # exp(-pi s^2) / (2 pi s) = 1 / U: w = 2 pi s^2 solves w + log w = 2 log U - log(2 pi)
        w = float(wrightomega(-2 * log_tail - math.log(2 * math.pi)).real)
        return _exp(math.log(w / (2 * math.pi)) / 2 - self._log_kappa)

    def _log_tail(self, epsilons: Values) -> Values:
        with np.errstate(divide="ignore", over="ignore"):
            logs = np.log(epsilons) + self._log_kappa
            if self.form == "paper":
                return -np.pi * np.exp(2 * logs) - math.log(2 * math.pi) - logs
            return np.asarray(log_ndtr(-(self._start + np.exp(logs + LOG_SCALE))), dtype=np.float64)

    @property
    def _log_kappa(self) -> float:
        """Of how much Lp is longer than L2 at most: 0 from p = 2 on."""
        return (0.5 - 1 / self.p) * math.log(self.n) if self.p < 2 and self.n > 1 else 0.0

    @property
    def _start(self) -> float:
        """Phi^-1(1 - f): where the class begins, as a half-space of Gaussian space."""
        return float(-ndtri(self.share))


def _exp(exponent: float) -> float:
    """Infinity where float64 ends."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
