"""The bound for changes of few pixels: values by mpmath, and the sets with the least growth that are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.inevitability.bounds.sparse import SparseBound
from service.errors import FieldError

# n, k, 2 exp(-k^2 / n), McDiarmid's form
TABLE = [
    (784, 28, 0.7357588823, 0.7129620145),
    (784, 50, 0.0824446327, 0.0569453977),
    (784, 100, 5.775100724e-6, 1.872737139e-8),
    (3_072, 100, 0.0771455677, 0.0520811923),
    (3_072, 200, 4.42745269e-6, 1.200924666e-8),
    (150_528, 500, 0.3799660404, 0.3752866474),
    (150_528, 1_000, 2.605488409e-3, 3.669571639e-4),
]


@pytest.mark.parametrize("n, k, paper, sharp", TABLE)
def test_table(n: int, k: int, paper: float, sharp: float) -> None:
    assert SparseBound(n=n, form="paper").ceiling(k) == pytest.approx(paper, rel=1e-9)
    assert SparseBound(n=n).ceiling(k) == pytest.approx(sharp, rel=1e-9)


def test_majority_sets() -> None:
    # n = 100: a point is in the set if most coordinates are at most 1/2; changes needed are the excess of the others
    large = np.random.default_rng(0).binomial(100, 0.5, 200_000)
    changes = np.maximum(large - 50, 0)
    for k, bound, measured in ((10, 0.264, 0.982), (15, 0.789, 0.9991), (20, 0.963, 0.99999)):
        reached = float((changes <= k).mean())
        assert reached == pytest.approx(measured, abs=0.002)
        assert SparseBound(n=100, form="paper").vulnerable(k) == pytest.approx(bound, abs=6e-4)
        assert SparseBound(n=100).vulnerable(k) <= reached


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9])
def test_any_share_of_a_class(share: float) -> None:
    # n = 200: the class is where more than a quantile of the coordinates are large
    draws = np.random.default_rng(1).binomial(200, 0.5, 200_000)
    edge = int(np.quantile(draws, 1 - share))
    changes, measured = np.maximum(draws - edge, 0), float((draws > edge).mean())
    bound = SparseBound(n=200, share=measured)
    for k in range(0, 60, 5):
        assert float((changes > k).mean()) <= bound.ceiling(k) + 1e-3


@settings(deadline=None)
@given(st.integers(1, 10**6), st.floats(0, 1e6), st.floats(0, 0.5))
def test_it_falls_and_is_below_the_papers(n: int, log_density: float, share: float) -> None:
    ks = np.unique(np.geomspace(1, n, 20).astype(int))
    sharp = SparseBound(n=n, log_density=log_density, share=share).log_ceiling(ks)
    paper = SparseBound(n=n, log_density=log_density, share=share, form="paper").log_ceiling(ks)
    assert (np.diff(sharp[1:]) <= 0).all() if share else (sharp == -np.inf).all()
    assert (sharp <= paper + 1e-9).all()


@settings(deadline=None)
@given(st.integers(2, 10**5), st.floats(0, 1e3), st.floats(0.01, 0.99), st.sampled_from(["sharp", "paper"]))
def test_first_useful_is_the_least_whole_number(n: int, log_density: float, share: float, form: str) -> None:
    bound = SparseBound(n=n, log_density=log_density, share=share, form=form)  # type: ignore[arg-type]
    first = bound.first_useful
    if first <= n:
        assert first == int(first) and bound.log_ceiling(first) < 0
        assert first == 0 or bound.log_ceiling(first - 1) >= 0


def test_limit_of_the_density() -> None:
    # 2 exp(-n) U < 1
    assert SparseBound(n=784, form="paper").log_density_limit == pytest.approx(784 - math.log(2), rel=1e-12)


def test_bad_input() -> None:
    with pytest.raises(FieldError, match="epsilon must be a whole number of pixels; it is 2.5"):
        SparseBound(n=10).ceiling([2, 2.5])
    with pytest.raises(FieldError, match="epsilon must be at most 10, the diameter of the cube in L0; it is 11"):
        SparseBound(n=10).ceiling(11)
