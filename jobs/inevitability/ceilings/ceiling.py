"""Ceilings of robust accuracy, beside which curves are drawn, and the alarm where a curve is above one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jobs.common.attacks import Norm
from jobs.common.metrics.intervals import clopper_pearson
from jobs.inevitability.curves import Curve

Source = Literal["bound", "concentration"]


@dataclass(frozen=True)
class Ceiling:
    """The robust accuracy that is said not to be exceeded, against epsilon at resolution 1, in one norm."""

    source: Source
    label: str
    norm: Norm
    epsilons: tuple[float, ...]
    """ascending"""
    values: tuple[float, ...]
    """shares in [0, 1], one for each epsilon; 1 says nothing"""
    certain: bool
    """whether it is proven for these data, not resting on an estimate"""
    least_error: float = 0.0
    """it is one for networks whose error on clean images is at least this"""
    least_uncertainty: float | None = None
    """and whose errors have an average label uncertainty of at least this; none: whatever it is"""
    first_useful: float = 0.0
    """beyond which it says something; infinity: nowhere"""

    def at(self, epsilons: Sequence[float]) -> np.ndarray:
        """The ceiling at each epsilon: that of the largest epsilon of its own which is not larger; 1 below all.

        Ceilings fall with epsilon, so that this one is never too low.
        """
        places = np.searchsorted(np.array(self.epsilons) * (1 - 1e-9), np.asarray(epsilons, float), side="right")
        return np.concatenate([[1.0], self.values])[places]

    def rows(self) -> list[dict[str, Any]]:
        """A row of a table for each epsilon."""
        columns = {"source": self.source, "ceiling": self.label, "norm": self.norm, "certain": self.certain}
        columns |= {"least_error": self.least_error, "least_uncertainty": self.least_uncertainty}
        columns |= {"first_useful": self.first_useful}
        return [
            columns | {"epsilon": epsilon, "value": value}
            for epsilon, value in zip(self.epsilons, self.values, strict=True)
        ]


def alarms(curves: Sequence[Curve], ceilings: Sequence[Ceiling]) -> list[str]:
    """Where a measured robust accuracy lies above a ceiling by more than its 95 % interval.

    One sentence for each curve and ceiling, of the smallest such epsilon. By theorem 4 of Shafahi et al. 2019 a ceiling
    holds at every resolution once epsilon is scaled. A ceiling for networks whose errors have uncertain labels raises
    no alarm: how uncertain those of a network are is not known here.
    """
    sentences = []
    for curve in curves:
        count = curve.robust.shape[1]
        scaled = [epsilon / curve.factor for epsilon in curve.epsilons]
        for ceiling in ceilings:
            if ceiling.norm != curve.norm or 1 - curve.accuracies[0] < ceiling.least_error:
                continue
            if ceiling.least_uncertainty is not None:
                continue
            for epsilon, robust, value in zip(scaled, curve.robust, ceiling.at(scaled), strict=True):
                if clopper_pearson(int(robust.sum()), count)[0] > value:
                    sentences.append(_alarm(curve, ceiling, epsilon, float(robust.double().mean()), float(value)))
                    break
    return sentences


def _alarm(curve: Curve, ceiling: Ceiling, epsilon: float, accuracy: float, value: float) -> str:
    cause = (
        "the attack is too weak, or the data are not what the bound supposes"
        if ceiling.certain
        else "the attack is too weak, or the ceiling rests on an estimate that is too low"
    )
    return (
        f"{curve.name} at resolution {curve.resolution} keeps {accuracy:.1%} in {curve.norm} at epsilon {epsilon:.4g}, "
        f"above the ceiling of {value:.1%} ({ceiling.label}): {cause}"
    )
