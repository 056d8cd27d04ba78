"""Correlations over few trials, against scipy, and how often their intervals hold the true one."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from jobs.common.metrics.correlation import FEWEST, association


@pytest.mark.parametrize(("true", "trials"), [(0.0, 6), (0.6, 12), (0.6, 40)])
def test_intervals_hold_the_true_correlation_about_as_often_as_they_say(true: float, trials: int) -> None:
    """Of normal numbers: Kendall's is 2 asin(r) / pi (Greiner), Spearman's 6 asin(r / 2) / pi."""
    random = np.random.default_rng(trials)
    repeats = 400
    held = np.zeros(3)
    truth = 2 * math.asin(true) / math.pi, 6 * math.asin(true / 2) / math.pi, true
    for _ in range(repeats):
        first, noise = random.standard_normal((2, trials))
        result = association(first, true * first + math.sqrt(1 - true**2) * noise)
        intervals = result.kendall, result.spearman, result.pearson
        held += [each.low <= value <= each.high for each, value in zip(intervals, truth, strict=True)]
    assert (held / repeats > 0.92).all(), held / repeats


def test_values_are_those_of_pairs_in_order() -> None:
    """Of 6 pairs one is in the wrong order."""
    result = association(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 30.0, 20.0, 40.0]))
    assert result.kendall.value == pytest.approx((5 - 1) / 6) and result.spearman.value == pytest.approx(0.8)
    assert (result.kendall.low, result.kendall.high) == (-1, 1), "four trials say nothing"
    assert not result.kendall.excludes_zero


def test_a_perfect_order_of_few_trials_is_not_certain() -> None:
    """5 trials are in order by chance once in 120, in either direction; 7 once in 5,040."""
    numbers = np.arange(7.0)
    five, seven = association(numbers[:5], np.exp(numbers[:5])), association(numbers, np.exp(numbers))
    assert five.kendall.value == pytest.approx(1) and five.p_value == pytest.approx(2 / math.factorial(5))
    assert not five.kendall.excludes_zero and seven.kendall.excludes_zero
    assert five.kendall.low < seven.kendall.low < association(np.arange(30.0), np.arange(30.0)).kendall.low < 1
    assert association(numbers, -numbers).kendall.high < 0


def test_what_is_not_finite_is_left_out_and_what_does_not_vary_has_no_correlation() -> None:
    first = np.array([0.3, np.nan, 0.1, 0.7, np.inf, 0.2, 0.9])
    second = np.array([1.0, 5.0, 2.0, 4.0, 0.0, np.nan, 6.0])
    result = association(first, second)
    kept = [0, 2, 3, 6]
    assert result.trials == 4 < FEWEST
    assert result.kendall.value == pytest.approx(kendalltau(first[kept], second[kept]).statistic)
    constant = association(np.ones(8), np.arange(8.0))
    assert math.isnan(constant.kendall.value) and (constant.pearson.low, constant.pearson.high) == (-1, 1)
    assert association(np.array([]), np.array([])).trials == 0
