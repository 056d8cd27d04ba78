"""What a search gives: a region, with its mass and that of its expansion on the points of the fit and on others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from jobs.inevitability.concentration.methods import Method, norm_name
from jobs.inevitability.concentration.regions import Region
from jobs.inevitability.concentration.samples import Sample
from service.errors import InputError


@dataclass(frozen=True)
class Mass:
    """How many points a region and its expansion hold."""

    points: int
    """all there are"""
    errors: int
    """in the region"""
    adversarial: int
    """in the region or within epsilon of it"""
    uncertainty: float | None
    """the average label uncertainty of the points in the region, if it is known and there are any"""

    @property
    def risk(self) -> float:
        """The mass of the region."""
        return self.errors / self.points

    @property
    def adversarial_risk(self) -> float:
        """The mass of the expanded region."""
        return self.adversarial / self.points


@dataclass(frozen=True)
class Measurement:
    """An upper estimate of the concentration function at one alpha and epsilon, and the region that shows it."""

    method: str
    p: float
    alpha: float
    epsilon: float
    seed: int
    train: Mass
    test: Mass
    region: Region
    details: Mapping[str, float | str]

    @property
    def ceiling(self) -> float:
        """The robust accuracy of a classifier whose errors are this region, on the points not fitted to.

        The intrinsic robustness, which no classifier with a risk of alpha or more exceeds, is this or higher, up to
        sampling: a search that finds a region with a smaller expansion raises it. A model above it need not be wrong.
        """
        return 1 - self.test.adversarial_risk

    @property
    def holds(self) -> bool:
        """Whether the region has a mass of alpha on the points not fitted to as well, as the ceiling supposes."""
        return self.test.risk >= self.alpha

    def row(self) -> dict[str, Any]:
        """A row of a table: numbers and text by name."""
        return {
            "method": self.method,
            "norm": norm_name(self.p),
            "alpha": self.alpha,
            "epsilon": self.epsilon,
            "seed": self.seed,
            "train_points": self.train.points,
            "train_risk": self.train.risk,
            "train_adversarial_risk": self.train.adversarial_risk,
            "train_uncertainty": self.train.uncertainty,
            "test_points": self.test.points,
            "test_risk": self.test.risk,
            "test_adversarial_risk": self.test.adversarial_risk,
            "test_uncertainty": self.test.uncertainty,
            "ceiling": self.ceiling,
            **self.details,
        }


def measure(
    method: Method,
    train: Sample,
    test: Sample,
    p: float,
    alpha: float,
    epsilons: Sequence[float],
    seed: int = 0,
) -> list[Measurement | None]:
    """Fit a region for each epsilon to the one sample and measure it on the other. None: the search ends without one.

    p: of the norm; inf is one. InputError or FieldError: see `Method.check`; the samples have other pixels.
    """
    if train.pixels != test.pixels:
        raise InputError(
            f"the points to measure on must have {train.pixels:,} pixels, as those of the fit have; they have "
            f"{test.pixels:,}"
        )
    measurements: list[Measurement | None] = []
    for epsilon, fit in zip(epsilons, method.fit(train, p, alpha, epsilons, seed), strict=True):
        if fit is None:
            measurements.append(None)
            continue
        masses = mass(fit.region, train, epsilon), mass(fit.region, test, epsilon)
        measurements.append(Measurement(method.kind, p, alpha, epsilon, seed, *masses, fit.region, fit.details))
    return measurements


def mass(region: Region, sample: Sample, epsilon: float) -> Mass:
    """Count a region and its expansion on a sample."""
    inside, expanded = region.within(sample.points, [0.0, epsilon])
    return Mass(len(sample), int(inside.sum()), int(expanded.sum()), _average(sample.uncertainty, inside))


def _average(uncertainty: Tensor | None, inside: Tensor) -> float | None:
    if uncertainty is None or not bool(inside.any()):
        return None
    return float(uncertainty[inside].double().mean())
