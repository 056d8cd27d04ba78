"""The interval of a share: its definition, and a value by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from jobs.common.metrics.intervals import (
    bootstrap_interval,
    clopper_pearson,
    clopper_pearson_upper,
    mean_interval,
    wilson,
    wilson_of_groups,
)


@given(st.integers(1, 3000), st.data())
def test_it_ends_where_the_share_is_just_not_unlikely(count: int, data: st.DataObject) -> None:
    # Wilson 1927: the ends p solve |share - p| = z sqrt(p (1 - p) / n)
    successes = data.draw(st.integers(0, count))
    low, high = wilson(successes, count)
    share, z = successes / count, norm.ppf(0.975)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / count), abs=1e-7)


def test_fifteen_in_twenty_and_none_of_none() -> None:
    # by hand: (0.75 + 1.9207 / 20 -+ 1.96 sqrt(0.75 0.25 / 20 + 1.9207^2 / (1.96 20)^2)) / (1 + 3.8415 / 20)
    assert wilson(15, 20) == pytest.approx((0.5313, 0.8881), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_repeats_that_resemble_each_other_are_worth_less() -> None:
    """The interval holds the share of 20 things as often as it says; of repeats taken for independent it does not."""
    stream, grouped, independent = np.random.default_rng(0), 0, 0
    for _ in range(400):
        outcomes = stream.random((20, 8)) < stream.beta(0.7, 0.3, (20, 1))  # the mean is 0.7, within groups rho is 0.5
        low, high = wilson_of_groups(outcomes.flatten().tolist(), list(np.repeat(range(20), 8)))
        grouped += low <= 0.7 <= high
        low, high = wilson(int(outcomes.sum()), outcomes.size)
        independent += low <= 0.7 <= high
    assert grouped >= 0.92 * 400 and independent <= 0.7 * 400


@pytest.mark.parametrize(
    ("groups", "successes", "count"),
    [
        ([[True], [False], [True]], 2, 3),  # one of each: independent
        ([[True, False, True, True]], 3, 4),  # of one thing alone
        ([[True] * 5, [False] * 5, [True] * 5], 2, 3),  # each repeat says the same
        ([[True] * 5] * 3, 3, 3),  # and where nothing differs
        ([[True, False], [False, True]], 2, 4),  # no more alike than others
        ([], 0, 0),
    ],
)
def test_groups_are_worth_what_can_be_said_exactly(groups: list[list[bool]], successes: int, count: int) -> None:
    outcomes = [(outcome, place) for place, group in enumerate(groups) for outcome in group]
    found = wilson_of_groups([outcome for outcome, _ in outcomes], [place for _, place in outcomes])
    assert found == pytest.approx(wilson(successes, count))


@given(st.integers(1, 3000), st.data())
def test_exact_interval_by_the_binomial_distribution(count: int, data: st.DataObject) -> None:
    # Clopper & Pearson 1934: at each end what was counted, or what is farther from it, has a probability of 2.5 %
    successes = data.draw(st.integers(0, count))
    low, high = clopper_pearson(successes, count)
    assert low == 0 if not successes else binom.sf(successes - 1, count, low) == pytest.approx(0.025, rel=1e-6)
    assert high == 1 if successes == count else binom.cdf(successes, count, high) == pytest.approx(0.025, rel=1e-6)
    upper = clopper_pearson_upper(successes, count)
    assert upper == 1 if successes == count else binom.cdf(successes, count, upper) == pytest.approx(0.05, rel=1e-6)


def test_exact_interval_without_successes_and_of_none() -> None:
    assert clopper_pearson_upper(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    assert clopper_pearson(0, 0) == (0.0, 1.0) and clopper_pearson_upper(0, 0) == 1.0


def test_a_mean_of_five() -> None:
    # by hand: a standard deviation of sqrt(2.5), so 3 -+ 2.7764 sqrt(2.5 / 5) with 4 degrees of freedom
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((1.0368, 4.9632), abs=5e-5)
    assert mean_interval([1.0]) == (-math.inf, math.inf)


def test_a_bootstrap_of_a_mean_is_that_of_students_interval() -> None:
    # of many values the percentiles of resampled means are those of the normal distribution
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(lambda drawn: drawn @ values / drawn.sum(1), 400, seed=0, resamples=4000)
    expected = mean_interval(values.tolist())
    assert (low, high) == pytest.approx(expected, abs=0.03)
    again = bootstrap_interval(lambda drawn: drawn @ values / drawn.sum(1), 400, seed=0, resamples=4000)
    assert again == (low, high)


def test_a_bootstrap_of_nothing() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(lambda drawn: np.ones(len(drawn)), 0, seed=0))
    assert all(math.isnan(end) for end in bootstrap_interval(lambda drawn: np.full(len(drawn), math.nan), 5, seed=0))
    rarely = bootstrap_interval(lambda drawn: np.where(drawn[:, 0] > 0, 1.0, math.nan), 5, seed=0)
    assert rarely == (1.0, 1.0), "resamples without the first value say nothing"
