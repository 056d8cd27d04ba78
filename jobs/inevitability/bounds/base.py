"""What all bounds share: a ceiling of the robust accuracy of a class, and a verdict in words.

A bound is kept as a logarithm, since peaks of densities of images are as large as e^4000 and tails as small as
e^-20000.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from service.errors import FieldError

Form = Literal["sharp", "paper"]
"""sharp: the exact tail, or the best one known, for every share of a class. paper: as printed, for shares up to 1/2"""

Radii = float | Sequence[float] | NDArray[np.float64]
Values = NDArray[np.float64]

ROUNDING = 1e-12
"""relative, by which a radius may pass the diameter"""


@dataclass(frozen=True)
class Verdict:
    """What a bound says, in words."""

    kind: Literal["useful", "vacuous", "not applicable"]
    first_useful: float
    """the radius from which on it says something; infinity: never"""
    sentence: str


class Bound(ABC):
    """The largest share of the points of a class that any classifier gets right everywhere within a radius.

    A point that is misclassified counts as not robust: the ceiling is one of robust accuracy on the class.
    """

    @property
    @abstractmethod
    def space(self) -> str:
        """Where the points are and how distances are measured: "the cube in L2"."""

    @property
    @abstractmethod
    def diameter(self) -> float:
        """The largest distance of two points; infinity: there is none."""

    @property
    @abstractmethod
    def unmet(self) -> str | None:
        """The hypothesis that fails, in words, or None if all hold."""

    @abstractmethod
    def _log_ceiling(self, epsilons: Values) -> Values:
        """`log_ceiling` where all hypotheses hold, for radii that are checked."""

    @abstractmethod
    def _epsilon_at(self, log_ceiling: float) -> float:
        """`epsilon_for` by the logarithm of the ceiling, at most 0, where all hypotheses hold."""

    def log_ceiling(self, epsilons: Radii) -> Values:
        """The logarithm of the ceiling at each radius, not cut at 0: from 0 on the bound is vacuous.

        epsilons: any shape, in the units of the space, from 0 to the diameter. Returns float64, the same shape; it
        falls with epsilon, and is infinity where a hypothesis fails. FieldError: a radius that is negative, not a
        number or beyond the diameter.
        """
        radii = self._checked(epsilons)
        return np.full(radii.shape, np.inf) if self.unmet else self._log_ceiling(radii)

    def ceiling(self, epsilons: Radii) -> Values:
        """The largest robust accuracy on the class at each radius, in [0, 1]; see `log_ceiling`."""
        return np.exp(np.minimum(self.log_ceiling(epsilons), 0.0))

    def vulnerable(self, epsilons: Radii) -> Values:
        """The least share of the class that is misclassified or has an adversarial example: 1 - ceiling, exactly."""
        return -np.expm1(np.minimum(self.log_ceiling(epsilons), 0.0))

    def epsilon_for(self, vulnerable: float) -> float:
        """The radius beyond which at least this share is misclassified or has an adversarial example; infinity: none.

        vulnerable: from 0, below 1. It may be beyond the diameter.
        """
        if not 0 <= vulnerable < 1:
            raise FieldError("vulnerable", "be at least 0 and below 1", vulnerable)
        return math.inf if self.unmet else self._epsilon_at(math.log1p(-vulnerable))

    @property
    def first_useful(self) -> float:
        """The radius beyond which the ceiling is below 1; infinity: there is none. It may be beyond the diameter."""
        return self.epsilon_for(0.0)

    def verdict(self, epsilon: float | None = None) -> Verdict:
        """Whether the bound says something at a radius; without one, whether it does anywhere in the space."""
        first = self.first_useful
        if self.unmet:
            return Verdict("not applicable", math.inf, f"not applicable: {self.unmet}")
        if math.isinf(first):
            return Verdict("vacuous", first, f"vacuous at every epsilon in {self.space}: {self._never}")
        if first >= self.diameter:
            reach = f"it would begin to say something at {first:.6g}, and the diameter is {self.diameter:.6g}"
            return Verdict("vacuous", first, f"vacuous at every epsilon in {self.space}: {reach}")
        start = f"from epsilon {first:.6g} on" if first else "at every epsilon"
        if epsilon is None:
            diameter = "" if math.isinf(self.diameter) else f", whose diameter is {self.diameter:.6g}"
            return Verdict("useful", first, f"useful {start} in {self.space}{diameter}")
        log_ceiling = float(self.log_ceiling(epsilon))
        if log_ceiling >= 0:
            return Verdict("vacuous", first, f"vacuous at epsilon {epsilon:.6g} in {self.space}: it is useful {start}")
        share = f"at most {math.exp(log_ceiling):.3g} of the class can be robust"
        return Verdict("useful", first, f"useful at epsilon {epsilon:.6g} in {self.space}: {share}")

    @property
    def _never(self) -> str:
        """Why no radius is large enough."""
        return "it would begin to say something only beyond the largest number of float64"

    def _checked(self, epsilons: Radii) -> Values:
        radii = np.asarray(epsilons, dtype=np.float64)
        wrong = radii[~(radii >= 0)]
        if wrong.size:
            raise FieldError("epsilon", "be at least 0", float(wrong.flat[0]))
        beyond = radii[radii > self.diameter * (1 + ROUNDING)]
        if beyond.size:
            requirement = f"be at most {self.diameter:.6g}, the diameter of {self.space}"
            raise FieldError("epsilon", requirement, float(beyond.flat[0]))
        return radii


@dataclass(frozen=True, kw_only=True)
class DensityBound(Bound):
    """A bound for a class with a density on a space of finite volume.

    n: dimension of the space that the points are written in. log_density: the logarithm of the peak of the density of
    the class relative to the uniform one (log U_c on the cube, log V_c on the sphere); infinity: it has no density.
    share: how much of the space the classifier labels as the class, of all points and not of the data; its upper limit
    where it was counted (`shares.ClassShare.upper`). form: see `Form`.
    FieldError: n below the least of the space, a density below 1, a share outside of [0, 1].
    """

    n: int
    log_density: float = 0.0
    share: float = 0.5
    form: Form = "sharp"

    def __post_init__(self) -> None:
        check_dimension(self.n, self._least_n)
        if not self.log_density >= 0:
            requirement = "be at least 0, since a density has a peak of at least 1 where the uniform one is 1"
            raise FieldError("log_density", requirement, self.log_density)
        if not 0 <= self.share <= 1:
            raise FieldError("share", "be a share of the space, from 0 to 1", self.share)
        if self.form not in get_args(Form):
            raise FieldError("form", f"be one of {', '.join(get_args(Form))}", self.form)

    @property
    def _least_n(self) -> int:
        return 1

    @property
    def unmet(self) -> str | None:
        if self.share == 1:
            return "the classifier labels all of the space as the class, so that there is no other class to reach"
        if self.form == "paper" and self.share > 0.5:
            return f"the class has a share of {self.share:.6g} of the space, and the theorem is for at most 0.5"
        return None

    @property
    def log_density_limit(self) -> float:
        """The log_density below which the bound says something within the diameter: -log of its tail there."""
        if self.unmet:
            return -math.inf
        return -float(self._log_tail(np.array(self.diameter))) if self.share else math.inf

    @abstractmethod
    def _log_tail(self, epsilons: Values) -> Values:
        """The logarithm of the largest volume of the points of the share that are farther than epsilon from the
        rest."""

    @abstractmethod
    def _epsilon_of(self, log_tail: float) -> float:
        """The radius beyond which the tail is below a value, at most 0, of a class that has a share of the space."""

    def _epsilon_at(self, log_ceiling: float) -> float:
        if not self.share:
            return 0.0
        return math.inf if math.isinf(self.log_density) else self._epsilon_of(log_ceiling - self.log_density)

    def _log_ceiling(self, epsilons: Values) -> Values:
        if not self.share:  # all of a class that is never predicted is misclassified
            return np.full(epsilons.shape, -np.inf)
        if math.isinf(self.log_density):  # all of the class may be where there is no volume
            return np.full(epsilons.shape, np.inf)
        return self.log_density + self._log_tail(epsilons)

    @property
    def _never(self) -> str:
        if math.isinf(self.log_density):
            return "the class has no density (images that are equal, or values on a grid); add uniform noise first"
        return super()._never


def check_dimension(n: int, least: int = 1) -> None:
    """FieldError unless n is a whole number from `least` on."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < least:
        raise FieldError("n", f"be a whole number of at least {least}", n)
