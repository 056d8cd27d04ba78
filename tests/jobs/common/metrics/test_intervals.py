"""The interval of a share: its definition, and a value by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from jobs.common.metrics.intervals import wilson


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
