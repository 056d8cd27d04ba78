"""Whether two numbers go together over trials: Kendall's, Spearman's and Pearson's correlation, with intervals."""

import math
from dataclasses import dataclass

import numpy as np
import scipy

CONFIDENCE = 0.95
FEW = 10  # trials below which a correlation says little
FEWEST = 5  # trials below which it says nothing: any interval is all of [-1, 1]


@dataclass(frozen=True)
class Correlation:
    """value: in [-1, 1], NaN where one of the numbers is the same in all trials. low, high: its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether its sign is known."""
        return self.low > 0 or self.high < 0


UNKNOWN = Correlation(math.nan, -1.0, 1.0)


@dataclass(frozen=True)
class Association:
    """Of one number with another over trials."""

    trials: int
    kendall: Correlation
    spearman: Correlation
    pearson: Correlation
    p_value: float
    """that Kendall's tau is 0: exact where there are no ties"""


def association(first: np.ndarray, second: np.ndarray) -> Association:
    """Of two numbers, (trials,) each. Trials in which one of them is not finite are left out.

    Intervals are symmetric in atanh of the correlation, with the standard errors of Fieller, Hartley & Pearson 1957
    ("Tests for rank correlation coefficients", Kendall), Bonett & Wright 2000 ("Sample size requirements for estimating
    Pearson, Kendall and Spearman correlations") and Fisher 1921. A rank correlation of 1 counts as the next below it
    that so many trials can have: else its interval would be a point, however few they are.
    """
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    count = len(first)
    if count < 2 or not np.ptp(first) or not np.ptp(second):
        return Association(count, UNKNOWN, UNKNOWN, UNKNOWN, math.nan)
    tau = scipy.stats.kendalltau(first, second)
    rho, r = (measure(first, second).statistic for measure in (scipy.stats.spearmanr, scipy.stats.pearsonr))
    spread = max(count - 3, 1)
    return Association(
        count,
        kendall=_with_interval(tau.statistic, 1 - 4 / (count * (count - 1)), 0.437 / max(count - 4, 1), count),
        spearman=_with_interval(rho, 1 - 12 / (count * (count**2 - 1)), (1 + rho**2 / 2) / spread, count),
        pearson=_with_interval(r, 1 - 1e-9, 1 / spread, count),
        p_value=float(tau.pvalue),
    )


def _with_interval(value: float, most: float, variance: float, count: int) -> Correlation:
    """most: what a larger one counts as. variance: of its atanh."""
    if count < FEWEST:
        return Correlation(float(value), -1.0, 1.0)
    centre = math.atanh(min(max(value, -most), most))
    half = scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(variance)
    return Correlation(float(value), math.tanh(centre - half), math.tanh(centre + half))
