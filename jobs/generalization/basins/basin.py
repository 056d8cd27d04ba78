"""What rays say of a basin: its radius, its volume and their intervals; and two basins beside each other."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from jobs.generalization.basins.rays import Convention
from jobs.generalization.basins.volume import (
    DOMINANCE,
    Interval,
    bootstrap,
    largest_share,
    log_mean,
    log_prior_masses,
    log_volumes,
)
from service.errors import InputError

LN10 = math.log(10)


@dataclass(frozen=True)
class Measure:
    """What is measured and in which units: basins are compared where all of it is the same."""

    convention: Convention
    quantity: str
    """loss or kl"""
    cut: float
    cuts_from: str
    """zero, or centre: the cut is above the loss of the network itself"""
    cap: float
    """in units of the norms of filters"""
    n: int
    """weights that move"""

    def check_same(self, other: "Measure") -> None:
        """InputError, naming the first difference: radii and volumes of different measures say nothing together."""
        for field in fields(self):
            ours, others = getattr(self, field.name), getattr(other, field.name)
            if ours != others:
                raise InputError(f"basins to compare must be of one {field.name}; they are of {ours} and {others}")


@dataclass(frozen=True)
class Prior:
    """A Gaussian prior around 0, and how the rays lie in it. Arrays float64 (rays,)."""

    deviation: float
    """of each weight"""
    square: float
    """||w||^2 over the weights that move"""
    lengths: np.ndarray
    """||d||"""
    slopes: np.ndarray
    """w . d"""


@dataclass(frozen=True, eq=False)
class Basin:
    """The rays of one network under one measure. Arrays (rays,)."""

    measure: Measure
    filters: int
    """that move"""
    log_scale: float
    """natural log of the volume of weights in a unit of the coordinates"""
    centre: float
    """what is cut, at the network itself"""
    radius: np.ndarray
    """float64"""
    censored: np.ndarray
    """bool: the cut is not reached within the cap"""
    crossings: np.ndarray
    """int64: how often the ray passes the cut on its way to the cap"""
    not_finite: np.ndarray
    """int64: distances of the scan at which the loss is not finite"""
    seed: int
    """of the bootstrap"""
    prior: Prior | None = None

    @cached_property
    def mean_radius(self) -> Interval:
        """With the interval of a mean over so many rays."""
        return bootstrap(lambda rays: self.radius[rays].mean(-1), len(self.radius), self.seed)

    @cached_property
    def log10_volume(self) -> Interval:
        """log10 of omega_n E[r^n], in units of the filters' norms."""
        return bootstrap(lambda rays: log_mean(self._logs[rays]) / LN10, len(self.radius), self.seed)

    @cached_property
    def log10_mass(self) -> Interval | None:
        """log10 of the probability that the prior draws weights of the basin, the others being as they are."""
        if (prior := self.prior) is None:
            return None
        masses = log_prior_masses(
            self.radius, self.measure.n, prior.lengths, prior.slopes, prior.square, prior.deviation
        )
        return bootstrap(lambda rays: (log_mean(masses[rays]) + self.log_scale) / LN10, len(self.radius), self.seed)

    @property
    def largest_share(self) -> float:
        """Of the sum of r^n, what its largest term makes up."""
        return largest_share(self._logs)

    @property
    def dominated(self) -> bool:
        """One ray carries the sum: the volume is then a lower bound, far from the truth."""
        return self.largest_share > DOMINANCE

    @cached_property
    def _logs(self) -> np.ndarray:
        return log_volumes(self.radius, self.measure.n)

    @property
    def named(self) -> str:
        """In a sentence."""
        return f"({self.measure.convention}, cut {self.measure.cut:g})"

    def row(self) -> dict[str, Any]:
        """For a table."""
        radius, volume = self.mean_radius, self.log10_volume
        of_mean = float(log_volumes(np.array([radius.value]), self.measure.n)[0]) / LN10
        exact = self.measure.convention != "filter"
        mass = self.log10_mass or Interval(math.nan, math.nan, math.nan)
        return asdict(self.measure) | {
            "rays": len(self.radius),
            "filters": self.filters,
            "log_scale": self.log_scale,
            "seed": self.seed,
            "centre": self.centre,
            "radius": radius.value,
            "radius_low": radius.low,
            "radius_high": radius.high,
            "log10_volume": volume.value,
            "log10_volume_low": volume.low,
            "log10_volume_high": volume.high,
            "log10_volume_of_mean_radius": of_mean,
            "log10_volume_of_weights": volume.value + self.log_scale / LN10 if exact else math.nan,
            "log10_prior_mass": mass.value,
            "log10_prior_mass_low": mass.low,
            "log10_prior_mass_high": mass.high,
            "largest_share": self.largest_share,
            "censored": float(self.censored.mean()),
            "several_crossings": float((self.crossings > 1).mean()),
            "not_finite": float((self.not_finite > 0).mean()),
        }


def doubts(basins: Sequence[Basin]) -> list[str]:
    """Sentences about what limits the numbers of a network's basins, one of each kind."""
    dominated = [each for each in basins if each.dominated]
    limits = {
        "do not reach the cut within the cap": [each.censored for each in basins],
        "come back below the cut; the first crossing counts": [each.crossings > 1 for each in basins],
        "have a loss that is not finite, which is past the cut": [each.not_finite > 0 for each in basins],
    }
    sentences = []
    if dominated:
        where = ", ".join(f"{each.largest_share:.0%} {each.named}" for each in dominated)
        sentences.append(f"the volume is carried by one ray, whose share of the sum is {where}: it is a lower bound")
    for what, marks in limits.items():
        counts = [(basin.named, int(mark.sum()), len(mark)) for basin, mark in zip(basins, marks, strict=True)]
        if where := ", ".join(f"{count} of {rays} {name}" for name, count, rays in counts if count):
            sentences.append(f"rays {what}: {where}")
    return sentences


@dataclass(frozen=True)
class Comparison:
    """A reference basin beside another one, with 95 % intervals over the rays."""

    measure: Measure
    radius_ratio: Interval
    """mean radius of the reference over that of the other"""
    log10_volume_gap: Interval
    """log10 of the volume of the reference over that of the other"""
    dominated: bool
    """of one of the two, one ray carries the volume"""

    def row(self) -> dict[str, Any]:
        """For a table."""
        ratio, gap = self.radius_ratio, self.log10_volume_gap
        return {
            **{name: value for name, value in asdict(self.measure).items() if name in ("convention", "cut", "n")},
            **{"radius_ratio": ratio.value, "radius_ratio_low": ratio.low, "radius_ratio_high": ratio.high},
            **{"log10_volume_gap": gap.value, "log10_volume_gap_low": gap.low, "log10_volume_gap_high": gap.high},
            "dominated": self.dominated,
        }


def compare(reference: Basin, other: Basin) -> Comparison:
    """InputError unless both are of the same measure and of as many rays, which are resampled in pairs."""
    reference.measure.check_same(other.measure)
    count = len(reference.radius)
    if count != len(other.radius):
        raise InputError(f"basins to compare must have as many rays; they have {count} and {len(other.radius)}")

    def ratio(rays: np.ndarray) -> np.ndarray:
        quotients: np.ndarray = reference.radius[rays].mean(-1) / other.radius[rays].mean(-1)
        return quotients

    def gap(rays: np.ndarray) -> np.ndarray:
        differences: np.ndarray = (log_mean(reference._logs[rays]) - log_mean(other._logs[rays])) / LN10
        return differences

    return Comparison(
        reference.measure,
        bootstrap(ratio, count, reference.seed),
        bootstrap(gap, count, reference.seed),
        reference.dominated or other.dominated,
    )
