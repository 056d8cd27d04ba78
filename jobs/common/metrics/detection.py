"""How well a score tells what is to be detected from what is not: its ROC, the area below, a threshold.

Positives are scores of what is to be detected, negatives of all else; higher is more like a positive.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy

from jobs.common.metrics.intervals import CONFIDENCE, clopper_pearson
from service.errors import FieldError, InputError

EDGE = 1e-9


@dataclass(frozen=True)
class Area:
    """Below a ROC: the chance that a positive scores more than a negative, equal ones half. low, high: 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Threshold:
    """What a score has to exceed."""

    value: float
    low: float
    high: float
    """95 % interval of the threshold that would have exactly the rate that was asked for; infinite where the negatives
    are too few to say"""
    negatives: int
    false_alarms: float
    """share of the negatives above it"""
    false_alarms_low: float
    false_alarms_high: float
    """95 % interval of that share"""


def roc(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of negatives and of positives above every threshold, from the strictest on: float64 (k,) each.

    positives: (m,), negatives: (n,), neither empty nor NaN.
    """
    _check(positives, negatives)
    levels = np.append(np.unique(np.concatenate([positives, negatives]))[::-1], -np.inf)
    above = [1 - np.searchsorted(np.sort(each), levels, "right") / len(each) for each in (negatives, positives)]
    return above[0], above[1]


def area(positives: np.ndarray, negatives: np.ndarray) -> Area:
    """The area below a ROC, with an interval that is of some width also where the two do not overlap.

    positives: (m,), negatives: (n,), neither empty nor NaN. Source of the interval: Newcombe 2006, "Confidence
    intervals for an effect size measure based on the Mann-Whitney statistic. Part 2", method 5.
    """
    _check(positives, negatives)
    m, n = len(positives), len(negatives)
    ordered = np.sort(negatives)
    below, equal_or_below = (np.searchsorted(ordered, positives, side) for side in ("left", "right"))
    value = float((below + equal_or_below).mean() / (2 * n))
    z, pooled = float(scipy.stats.norm.ppf((1 + CONFIDENCE) / 2)), (m + n) / 2 - 1

    def excess(theta: float) -> float:
        inside = 1 + pooled * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(value - theta) - z * math.sqrt(theta * (1 - theta) * inside / (m * n))

    # at 0 and 1 themselves the excess is 0: the ends that are looked for lie inside
    low = 0.0 if value == 0 else float(scipy.optimize.brentq(excess, 0.0, min(value, 1 - EDGE)))
    high = 1.0 if value == 1 else float(scipy.optimize.brentq(excess, max(value, EDGE), 1.0))
    return Area(value, low, high)


def threshold_at(negatives: np.ndarray, rate: float) -> Threshold:
    """The lowest threshold that at most a share `rate` of the negatives exceeds. negatives: (n,), not empty, not NaN.

    Its interval is that of a quantile by order statistics, whatever the distribution (David & Nagaraja 2003, 7.1).
    FieldError unless 0 < rate < 1.
    """
    if not 0 < rate < 1:
        raise FieldError("rate", "be above 0 and below 1", rate)
    _check(negatives, negatives)
    ordered, count = np.sort(negatives), len(negatives)
    value = float(ordered[count - 1 - math.floor(rate * count + 1e-9)])
    tail = (1 - CONFIDENCE) / 2
    lower, upper = (
        int(scipy.stats.binom.ppf(tail, count, 1 - rate)),
        int(scipy.stats.binom.ppf(1 - tail, count, 1 - rate)) + 1,
    )
    alarms = int((negatives > value).sum())
    low, high = clopper_pearson(alarms, count)
    return Threshold(
        value,
        low=float(ordered[lower - 1]) if lower >= 1 else -math.inf,
        high=float(ordered[upper - 1]) if upper <= count else math.inf,
        negatives=count,
        false_alarms=alarms / count,
        false_alarms_low=low,
        false_alarms_high=high,
    )


def _check(positives: np.ndarray, negatives: np.ndarray) -> None:
    for name, scores in (("positives", positives), ("negatives", negatives)):
        if not len(scores) or np.isnan(scores).any():
            raise InputError(f"{name} must be scores, at least one, and none NaN")
