"""Susceptibility curves: the share of images that are robust, against epsilon.

An image that does not withstand a perturbation of one size does not withstand a larger budget either. So success is
carried upwards: curves never rise, whatever attacks miss. Source: Shafahi et al. 2019 ("Are adversarial examples
inevitable?"), section 6, where they show how much of an accuracy is left at each epsilon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.common.attacks import Norm
from jobs.common.metrics.intervals import clopper_pearson
from jobs.common.robustness.outcomes import Outcome
from jobs.inevitability.resolutions import factor


@dataclass(frozen=True)
class Curve:
    """The robust accuracy of a network at one resolution, in one norm."""

    name: str
    """of the network"""
    kind: str
    resolution: int
    norm: Norm
    epsilons: tuple[float, ...]
    """ascending; the first is 0, the clean images"""
    robust: Tensor
    """bool (epsilons, images): it never turns true again along the epsilons"""
    distances: Tensor
    """float64 (images,): the least norm known to change the answer; 0 if it is wrong already, inf if none is known"""
    mean_norm: float
    """of the clean images"""

    @property
    def factor(self) -> float:
        """By how much epsilons grow with the resolution."""
        return factor(self.norm, self.resolution)

    @property
    def accuracies(self) -> list[float]:
        """The share of images that are robust, at each epsilon."""
        return [float(share) for share in self.robust.double().mean(1)]

    def accuracy(self, epsilon: float) -> float:
        """At one of its epsilons, given to within rounding."""
        place = min(range(len(self.epsilons)), key=lambda index: abs(self.epsilons[index] - epsilon))
        if not abs(self.epsilons[place] - epsilon) <= 1e-9 * max(1.0, epsilon):
            raise ValueError(f"epsilon {epsilon} is not one of {self.epsilons}")
        return self.accuracies[place]

    @property
    def median_distance(self) -> float:
        """The least epsilon that is known to change the answers to half of the images; infinity: none is."""
        return float(torch.quantile(self.distances, 0.5, interpolation="lower"))

    @property
    def area(self) -> float:
        """The mean robust accuracy from 0 to the largest epsilon, by straight lines between the points."""
        epsilons = torch.tensor(self.epsilons, dtype=torch.float64)
        return float(torch.trapezoid(self.robust.double().mean(1), epsilons) / epsilons[-1])

    def rows(self) -> list[dict[str, Any]]:
        """A row of a table for each epsilon, with exact 95 % intervals.

        scaled_epsilon: epsilon over the factor of the resolution; relative_epsilon: over the mean norm of the images.
        """
        count = self.robust.shape[1]
        rows = []
        for epsilon, robust in zip(self.epsilons, self.robust, strict=True):
            low, high = clopper_pearson(int(robust.sum()), count)
            sizes = {"scaled_epsilon": epsilon / self.factor, "relative_epsilon": epsilon / self.mean_norm}
            accuracy = float(robust.double().mean())
            rows.append(self.columns | {"epsilon": epsilon} | sizes | {"accuracy": accuracy, "low": low, "high": high})
        return [row | {"images": count} for row in rows]

    def summary(self) -> dict[str, Any]:
        """A row of a table: the accuracy on clean images, the median distance in three units, and the area."""
        median = self.median_distance
        return self.columns | {
            "clean": self.accuracies[0],
            "median_distance": median,
            "scaled_median": median / self.factor,
            "relative_median": median / self.mean_norm,
            "area": self.area,
        }

    @property
    def columns(self) -> dict[str, Any]:
        """What tells it from other curves."""
        return {"network": self.name, "kind": self.kind, "resolution": self.resolution, "norm": self.norm}


def least_distances(correct: Tensor, outcomes: Mapping[float, Sequence[Outcome]]) -> Tensor:
    """The least norm that any attack is known to succeed at: float64 (images,)."""
    everything = [each.distances for attacked in outcomes.values() for each in attacked]
    return torch.where(correct, torch.stack(everything).amin(0), 0.0)


def resolution_gaps(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """How far curves at higher resolutions are from that at 1, once epsilon is scaled: a row for each.

    gap: the largest difference of accuracy over the epsilons of the curve at 1. fixed_gain: the least rise of accuracy
    over the curve at 1 at equal epsilons, where these were measured and the norm grows with the resolution.
    """
    rows = []
    for curve in curves:
        bases = [
            each
            for each in curves
            if (each.name, each.norm, each.resolution) == (curve.name, curve.norm, 1) and curve.resolution > 1
        ]
        for base in bases:
            gaps = [
                abs(curve.accuracy(epsilon * curve.factor) - accuracy)
                for epsilon, accuracy in zip(base.epsilons, base.accuracies, strict=True)
            ]
            shared = sorted(set(base.epsilons[1:]) & set(curve.epsilons[1:]))
            gains = [curve.accuracy(epsilon) - base.accuracy(epsilon) for epsilon in shared if curve.factor > 1]
            rows.append(curve.columns | {"gap": max(gaps), "fixed_gain": min(gains, default=None)})
    return rows
