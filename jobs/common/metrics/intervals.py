"""How sure a share is that was counted, and a mean that was measured."""

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # scipy.stats loads at its first use: most processes have none

CONFIDENCE = 0.95
RESAMPLES = 1000
TOGETHER = 50  # resamples whose statistics are computed at the same time


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, as if the counted were drawn at random; all of [0, 1] if there are none.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not count:
        return 0.0, 1.0
    interval = scipy.stats.binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_of_groups(outcomes: Sequence[bool], groups: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of a share of outcomes that resemble each other within a group, as several trials of one thing.

    Wilson's, of as many independent outcomes as these are worth: N / (1 + (m - 1) rho), with m the mean size of a group
    and rho the correlation within groups, by analysis of variance. Where all outcomes are equal, which tells nothing of
    rho, groups are counted. Groups of one, or one group, are taken for independent.
    Sources: Kish 1965, "Survey Sampling", section 5.4; Korn & Graubard 1998, "Confidence intervals for proportions with
    small expected number of positive counts".
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    total, count, right = len(outcomes), len(sizes), sum(outcomes)
    if count in (0, 1, total):
        return wilson(right, total)
    share, shares, worth = right / total, np.bincount(group, outcomes) / sizes, float(count)
    if 0 < right < total:
        between = float((sizes * (shares - share) ** 2).sum()) / (count - 1)
        within = float((sizes * shares * (1 - shares)).sum()) / (total - count)
        size = (total - float((sizes**2).sum()) / total) / (count - 1)
        correlation = min(max((between - within) / (between + (size - 1) * within), 0.0), 1.0)
        worth = total / (1 + (total / count - 1) * correlation)
    square = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    centre = (share + square / (2 * worth)) / (1 + square / worth)
    reach = math.sqrt(square * (share * (1 - share) / worth + square / (4 * worth**2))) / (1 + square / worth)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a share: it holds the true one in at least 95 % of samples, however small these are.

    Source: Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """
    if not count:
        return 0.0, 1.0
    interval = scipy.stats.binomtest(successes, count).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def clopper_pearson_upper(successes: int, count: int) -> float:
    """The exact 95 % limit of a share from above alone: 1 - 0.05^(1/count) without successes."""
    if not count:
        return 1.0
    return float(
        scipy.stats.binomtest(successes, count, alternative="less").proportion_ci(CONFIDENCE, method="exact").high
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean of values that were drawn at random; all numbers if there are fewer than two.

    Source: Student 1908, "The probable error of a mean".
    """
    count = len(values)
    if count < 2:
        return -math.inf, math.inf
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(count)
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return mean - reach, mean + reach


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % interval of a statistic of examples that were drawn at random: its percentiles over resamples of them.

    statistic: of how often each example is drawn, int64 (draws, count), one number a draw, (draws,). Resamples of which
    it is NaN do not count; both ends are NaN if it is NaN of the examples themselves. Of few examples the interval is
    too narrow.
    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    if not count or math.isnan(statistic(np.ones((1, count), np.int64))[0]):
        return math.nan, math.nan
    stream = np.random.default_rng(seed)
    values = np.concatenate(
        [
            statistic(
                np.stack(
                    [
                        np.bincount(stream.integers(count, size=count), minlength=count)
                        for _ in range(min(TOGETHER, resamples - start))
                    ]
                )
            )
            for start in range(0, resamples, TOGETHER)
        ]
    )
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(values, (tail, 100 - tail))
    return float(low), float(high)
