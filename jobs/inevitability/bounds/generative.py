"""The bound for data that a smooth generator makes of Gaussian noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri, ndtri_exp

from jobs.inevitability.bounds.base import ROUNDING, Bound, Form, Values
from service.errors import FieldError


@dataclass(frozen=True, kw_only=True)
class GenerativeBound(Bound):
    """Points x = g(z) with z from N(0, I_d), over all classes together; d is in it only through the modulus of g.

    lipschitz: L, with which distances of images are at most L times those of their latent vectors: r = epsilon / L.
    shares: of the latent space, by class, as the classifier labels g(z): p_i, or upper limits of these; they add up to
    at least 1 (`shares.class_shares` of the space "latent" counts them); None: all that is known is that no class has
    more than 1/2. Robust accuracy at epsilon is at most

        sharp:  sum over i of Phi(-(Phi^-1(1 - p_i) + r)), without shares 2 Phi(-r)
        paper:  (pi/2)^(1/2) exp(-r^2 / 2)                             for all p_i <= 1/2

    Adversarial examples are points of the generator's range. The bound is as sound as L is: with an estimate of L from
    samples, which is never too large, it is an estimate as well (`lipschitz.py`).
    FieldError: a Lipschitz constant that is not above 0, shares that are not from 0 to 1 or add up to less than 1.
    Source: Fawzi et al. 2018 ("Adversarial vulnerability for any classifier"), theorem 1 and its general form.
    """

    lipschitz: float
    shares: tuple[float, ...] | None = None
    form: Form = "sharp"

    def __post_init__(self) -> None:
        if not (self.lipschitz > 0 and math.isfinite(self.lipschitz)):
            raise FieldError("lipschitz", "be above 0 and finite", self.lipschitz)
        if self.shares is not None:
            check_shares(self.shares)
        if self.form not in get_args(Form):
            raise FieldError("form", f"be one of {', '.join(get_args(Form))}", self.form)

    @property
    def space(self) -> str:
        return "the range of the generator"

    @property
    def diameter(self) -> float:
        """Infinity: it is not known how large the range is."""
        return math.inf

    @property
    def unmet(self) -> str | None:
        largest = max(self.shares or (0.5,))
        if largest == 1:
            return "the classifier labels all that is generated as one class"
        if self.form == "paper" and largest > 0.5:
            return f"a class has a share of {largest:.6g} of what is generated, and the theorem is for at most 0.5"
        return None

    def _log_ceiling(self, epsilons: Values) -> Values:
        reach = epsilons / self.lipschitz
        if self.form == "paper":
            return math.log(math.pi / 2) / 2 - reach**2 / 2
        if self.shares is None:
            return math.log(2) + np.asarray(log_ndtr(-reach))
        starts = -ndtri(np.array([share for share in self.shares if share]))
        tails = np.asarray(log_ndtr(-(starts + reach[..., None])))  # (..., classes)
        return np.asarray(np.logaddexp.reduce(tails, axis=-1), dtype=np.float64)

    def _epsilon_at(self, log_ceiling: float) -> float:
        if self.form == "paper":
            return self.lipschitz * math.sqrt(math.log(math.pi / 2) - 2 * log_ceiling)
        if self.shares is None:
            return self.lipschitz * -float(ndtri_exp(log_ceiling - math.log(2)))
        low, high = 0.0, self.lipschitz
        if float(self._log_ceiling(np.array(low))) <= log_ceiling + ROUNDING:
            return 0.0
        while float(self._log_ceiling(np.array(high))) > log_ceiling:
            low, high = high, 2 * high
        return float(brentq(lambda epsilon: float(self._log_ceiling(np.array(epsilon))) - log_ceiling, low, high))


def check_shares(shares: Sequence[float]) -> None:
    """FieldError unless they are a distribution over classes, or upper limits of one."""
    if not all(0 <= share <= 1 for share in shares) or not sum(shares) >= 1 - 1e-6:
        raise FieldError("shares", "be from 0 to 1 and add up to at least 1", tuple(shares))
