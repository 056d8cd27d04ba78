"""The bound for generated data: half-spaces of latent space, for which it is exact, and linear generators."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from jobs.inevitability.bounds.generative import GenerativeBound
from service.errors import FieldError


def test_two_half_spaces_reach_it() -> None:
    # g(z) = 3 z and classes by the sign of one coordinate: a point is robust if it is farther than epsilon from 0
    draws = 3 * np.random.default_rng(0).standard_normal(200_000)
    for epsilon in (1.0, 3.0, 6.0):
        robust = float((np.abs(draws) > epsilon).mean())
        ceiling = GenerativeBound(lipschitz=3.0).ceiling(epsilon)
        assert ceiling == pytest.approx(2 * norm.cdf(-epsilon / 3), rel=1e-12)
        assert robust == pytest.approx(ceiling, abs=0.005)
        assert GenerativeBound(lipschitz=3.0, shares=(0.5, 0.5)).ceiling(epsilon) == pytest.approx(ceiling, rel=1e-12)


def test_a_class_of_more_than_half() -> None:
    edge = norm.ppf(0.8)
    draws = np.random.default_rng(1).standard_normal(200_000)
    bound = GenerativeBound(lipschitz=1.0, shares=(0.8, 0.2))
    assert float((np.abs(draws - edge) > 0.5).mean()) == pytest.approx(float(bound.ceiling(0.5)), abs=0.005)
    printed = GenerativeBound(lipschitz=1.0, shares=(0.8, 0.2), form="paper")
    assert printed.verdict().kind == "not applicable" and printed.ceiling(0.5) == 1
    assert "a class has a share of 0.8 of what is generated, and the theorem is for at most 0.5" in str(printed.unmet)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=10), st.floats(0.01, 10), st.floats(0, 50))
def test_it_falls_and_is_below_the_papers(weights: list[float], lipschitz: float, reach: float) -> None:
    total = sum(weights)
    if not total or max(weights) > total / 2:
        return
    shares = tuple(weight / total for weight in weights)
    by_shares = GenerativeBound(lipschitz=lipschitz, shares=shares).log_ceiling([reach, reach + 1])
    without = GenerativeBound(lipschitz=lipschitz).log_ceiling([reach, reach + 1])
    paper = GenerativeBound(lipschitz=lipschitz, form="paper").log_ceiling([reach, reach + 1])
    assert by_shares[1] < by_shares[0] + 1e-12 and np.isfinite(by_shares).all()
    assert (by_shares <= without + 1e-9).all() and (without <= paper + 1e-12).all()


@pytest.mark.parametrize("shares", [None, (0.5, 0.3, 0.2), (0.9, 0.1, 0.0)])
def test_epsilon_for(shares: tuple[float, ...] | None) -> None:
    bound = GenerativeBound(lipschitz=2.0, shares=shares)
    for vulnerable in (0.1, 0.9, 1 - 1e-9):
        assert bound.vulnerable(bound.epsilon_for(vulnerable)) == pytest.approx(vulnerable, rel=1e-9)
    assert bound.first_useful == pytest.approx(0, abs=1e-12)
    assert bound.verdict(1.0).kind == "useful"


def test_upper_limits_of_shares() -> None:
    """The ceiling is never below that of the shares themselves, and says something from where it falls below 1."""
    bound = GenerativeBound(lipschitz=2.0, shares=(0.52, 0.33, 0.22))
    epsilons = np.linspace(0, 5, 11)
    exact = GenerativeBound(lipschitz=2.0, shares=(0.5, 0.3, 0.2)).log_ceiling(epsilons)
    assert (bound.log_ceiling(epsilons) > exact).all() and bound.ceiling(0.0) == 1
    first = bound.first_useful
    assert first > 0 and bound.log_ceiling(first) == pytest.approx(0, abs=1e-9) and bound.vulnerable(1.01 * first) > 0


def test_the_papers_form() -> None:
    bound = GenerativeBound(lipschitz=2.0, form="paper")
    assert bound.ceiling(4.0) == pytest.approx(math.sqrt(math.pi / 2) * math.exp(-2), rel=1e-12)
    assert bound.log_ceiling(bound.first_useful) == pytest.approx(0, abs=1e-12)
    assert bound.verdict().sentence.startswith("useful from epsilon 1.344 on in the range of the generator")


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"lipschitz": 0.0}, "lipschitz must be above 0 and finite; it is 0"),
        ({"lipschitz": math.inf}, "lipschitz must be above 0 and finite; it is inf"),
        ({"lipschitz": 1.0, "shares": (0.5, 0.4)}, "shares must be from 0 to 1 and add up to at least 1"),
        ({"lipschitz": 1.0, "shares": (1.5, -0.5)}, "shares must be from 0 to 1 and add up to at least 1"),
        ({"lipschitz": 1.0, "shares": ()}, "shares must be from 0 to 1 and add up to at least 1"),
        ({"lipschitz": 1.0, "form": "x"}, "form must be one of sharp, paper; it is 'x'"),
    ],
)
def test_bad_fields(fields: dict, sentence: str) -> None:
    with pytest.raises(FieldError, match=sentence):
        GenerativeBound(**fields)


def test_one_class() -> None:
    assert GenerativeBound(lipschitz=1.0, shares=(1.0, 0.0)).verdict().kind == "not applicable"
