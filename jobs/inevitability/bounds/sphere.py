"""The bound on the sphere."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from jobs.inevitability.bounds import caps
from jobs.inevitability.bounds.base import DensityBound, Values
from service.errors import FieldError

Metric = Literal["geodesic", "chord"]
"""geodesic: the angle, in radians. chord: the straight line, 2 sin(angle / 2)"""


@dataclass(frozen=True, kw_only=True)
class SphereBound(DensityBound):
    """Points of the unit sphere S^(n-1), n at least 2.

    With V_c the peak of the density of the class relative to the uniform one, f its share of the sphere, r(f) the
    radius of a cap of measure f and mu(r) the measure of a cap of radius r, robust accuracy at the angle epsilon is at
    most

        sharp:  V_c mu(r(f) - epsilon)                               Lévy's inequality, exact
        paper:  V_c (pi/8)^(1/2) exp(-(n - 1) epsilon^2 / 2)         for f <= 1/2

    Source: Shafahi et al. 2019 ("Are adversarial examples inevitable?"), theorem 1 and lemma 1.
    """

    metric: Metric = "geodesic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in get_args(Metric):
            raise FieldError("metric", f"be one of {', '.join(get_args(Metric))}", self.metric)

    @property
    def _least_n(self) -> int:
        return 2

    @property
    def space(self) -> str:
        return f"the sphere in {'angles' if self.metric == 'geodesic' else 'chords'}"

    @property
    def diameter(self) -> float:
        return math.pi if self.metric == "geodesic" else 2.0

    @property
    def log_density_limit(self) -> float:
        """In the paper's form that of pi/2, where the expansion of a hemisphere has covered the sphere.

        In the sharp form infinity: no point is farther than r(f) from another class.
        """
        if self.form == "sharp" or self.unmet or not self.share:
            return super().log_density_limit
        return (self.n - 1) * math.pi**2 / 8 - math.log(math.pi / 8) / 2

    def _epsilon_of(self, log_tail: float) -> float:
        if self.form == "sharp":
            angle = self._class_radius - caps.radius(log_tail, self.n)
        else:
            angle = math.sqrt(max(0.0, 2 * (math.log(math.pi / 8) / 2 - log_tail) / (self.n - 1)))
        angle = max(0.0, angle)
        if self.metric == "geodesic":
            return angle
        return 2 * math.sin(angle / 2) if angle <= math.pi else math.inf

    def _log_tail(self, epsilons: Values) -> Values:
        angles = epsilons if self.metric == "geodesic" else 2 * np.arcsin(np.minimum(epsilons / 2, 1.0))
        if self.form == "paper":
            return math.log(math.pi / 8) / 2 - (self.n - 1) * angles**2 / 2
        start = self._class_radius
        return np.array([caps.log_measure(start - angle, self.n) for angle in angles.flat]).reshape(angles.shape)

    @property
    def _class_radius(self) -> float:
        """Of the cap with the share of the class."""
        return math.pi / 2 if self.share == 0.5 else caps.radius(math.log(self.share), self.n)
