"""The bound on the cube: mpmath, sets of known growth, and what two forms have to do with each other."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.inevitability.bounds.cube import CubeBound
from service.errors import FieldError

# epsilon, tail beyond half of the cube, the paper's, logarithm of the tail: computed with mpmath
TABLE = [
    (0.05, 0.450130591845, 3.158, -0.79821753422),
    (0.1, 0.401037401323, 1.5423, -0.913700585894),
    (0.25, 0.265442025535, 0.523126355732, -1.32635882171),
    (0.5, 0.105045702722, 0.145129613556, -2.25335975951),
    (1, 6.0944410924e-3, 6.87770870205e-3, -5.10037821961),
    (1.5, 8.49762375883e-5, 9.03404139969e-5, -9.37313889834),
    (2, 2.6758233098e-7, 2.77513887122e-7, -15.1338385386),
    (3, 2.74122588752e-14, 2.78812148036e-14, -31.2277860774),
    (5, 2.45877708763e-36, 2.47423690977e-36, -81.9933992403),
    (10, 5.80091197215e-139, 5.81011525368e-139, -318.301312784),
]


@pytest.mark.parametrize("epsilon, tail, paper, log_tail", TABLE)
@pytest.mark.parametrize("n", [784, 150_528])
def test_table(n: int, epsilon: float, tail: float, paper: float, log_tail: float) -> None:
    bound, printed = CubeBound(n=n), CubeBound(n=n, form="paper")
    assert bound.ceiling(epsilon) == pytest.approx(tail, rel=1e-9)
    assert bound.log_ceiling(epsilon) == pytest.approx(log_tail, rel=1e-9)
    assert printed.log_ceiling(epsilon) == pytest.approx(math.log(paper), abs=1e-9 if paper < 1 else 1e-4)
    assert printed.ceiling(epsilon) == pytest.approx(min(1, paper), rel=1e-9)
    if epsilon <= 1:  # the same numbers in all norms from L2 on
        assert CubeBound(n=n, p=math.inf).log_ceiling(epsilon) == bound.log_ceiling(epsilon)
        assert CubeBound(n=n, p=3).log_ceiling(epsilon) == bound.log_ceiling(epsilon)


def test_tail_too_small_for_a_float() -> None:
    assert CubeBound(n=784).log_ceiling(20) == pytest.approx(-1261.47106827, rel=1e-9)
    with mpmath.workdps(30):
        printed = mpmath.exp(-mpmath.pi * 400) / (40 * mpmath.pi)
        assert mpmath.nstr(printed, 12) == "1.41334634211e-548"
    assert CubeBound(n=784, form="paper").log_ceiling(20) == pytest.approx(float(mpmath.log(printed)), rel=1e-12)


# n, p, epsilon, tail, the paper's
BELOW_TWO = [
    (784, 1.0, 10.0, 0.185333576263, 0.298504282983),
    (784, 1.0, 30.0, 3.61919292878e-3, 4.0328172574e-3),
    (3072, 1.0, 50.0, 0.0118717689359, 0.0136844836105),
    (784, 1.5, 2.0, 0.0493743929387, 0.0618460309768),
    (784, 0.5, 1000.0, 0.454544864251, 1.0),
]


@pytest.mark.parametrize("n, p, epsilon, tail, paper", BELOW_TWO)
def test_norms_below_two(n: int, p: float, epsilon: float, tail: float, paper: float) -> None:
    assert CubeBound(n=n, p=p).ceiling(epsilon) == pytest.approx(tail, rel=1e-9)
    assert CubeBound(n=n, p=p, form="paper").ceiling(epsilon) == pytest.approx(paper, rel=1e-9)


# volume of the other classes, epsilon, volume within epsilon of them
VOLUMES = [
    (0.9, 0.25, 0.97181787194),
    (0.5, 0.25, 0.734557974465),
    (0.1, 0.5, 0.488736392853),
    (0.01, 0.5, 0.141627989785),
    (0.01, 1.0, 0.571533779181),
    (1e-6, 2.0, 0.602503409718),
]


@pytest.mark.parametrize("volume, epsilon, reached", VOLUMES)
def test_any_volume(volume: float, epsilon: float, reached: float) -> None:
    # 1 - 1e-6 is a float with an error of 1e-17, a relative 1e-11 of the volume
    assert CubeBound(n=784, share=1 - volume).vulnerable(epsilon) == pytest.approx(reached, rel=1e-9)


FIRST = [(0, 0.148502, 0), (1, 0.316083, 0.134633), (10, 1.566887, 1.561439), (100, 5.540847, 5.540700)]
FIRST += [(1000, 17.799113, 17.799108)]


@pytest.mark.parametrize("log_density, paper, sharp", FIRST)
def test_first_useful_table(log_density: float, paper: float, sharp: float) -> None:
    bound = CubeBound(n=784, log_density=log_density)
    assert bound.first_useful == pytest.approx(sharp, abs=6e-7)
    assert CubeBound(n=784, log_density=log_density, form="paper").first_useful == pytest.approx(paper, abs=6e-7)


@settings(deadline=None)
@given(
    st.integers(1, 10**6),
    st.floats(0.3, 4) | st.just(math.inf),
    st.floats(0, 1e6),
    st.floats(1e-9, 1 - 1e-9),
    st.sampled_from(["sharp", "paper"]),
    st.floats(0, 0.999),
)
def test_epsilon_for_is_the_inverse_of_the_ceiling(
    n: int, p: float, log_density: float, share: float, form: str, vulnerable: float
) -> None:
    bound = CubeBound(n=n, p=p, log_density=log_density, share=share, form=form)  # type: ignore[arg-type]
    epsilon = bound.epsilon_for(vulnerable)
    if 0 < epsilon < bound.diameter:
        expected = math.log1p(-vulnerable)
        # a relative 1e-12 of epsilon moves the logarithm by about 2e-12 of the density's
        assert bound.log_ceiling(epsilon) == pytest.approx(expected, abs=1e-11 * (1 + log_density) + 1e-9)
    elif epsilon == 0:
        assert bound.log_ceiling(0.0) <= math.log1p(-vulnerable) + 1e-9


@settings(deadline=None)
@given(st.integers(1, 10**6), st.floats(0.3, 4), st.floats(0, 1e6), st.floats(1e-9, 0.5))
@example(225_322, 1.0, 0.0, 0.5)  # both forms are -7e5 where they differ by rounding
def test_it_falls_and_is_below_the_papers(n: int, p: float, log_density: float, share: float) -> None:
    sharp = CubeBound(n=n, p=p, log_density=log_density, share=share)
    paper = CubeBound(n=n, p=p, log_density=log_density, share=share, form="paper")
    epsilons = np.concatenate([[0.0], np.geomspace(1e-6, 1, 30)]) * sharp.diameter
    values = sharp.log_ceiling(epsilons)
    assert np.isfinite(values).all() and (np.diff(values) <= 0).all()
    papers = paper.log_ceiling(epsilons)
    assert (values <= papers + 1e-12 * np.abs(papers) + 1e-9).all()
    assert sharp.ceiling(epsilons) + sharp.vulnerable(epsilons) == pytest.approx(1)
    assert sharp.first_useful <= paper.first_useful * (1 + 1e-9)


@settings(deadline=None)
@given(st.floats(0.5, 1.9), st.floats(0.1, 10))
def test_dimension_helps_the_classifier_in_small_norms_alone(p: float, epsilon: float) -> None:
    """At the same density and epsilon."""
    values = [float(CubeBound(n=n, p=p).log_ceiling(epsilon)) for n in (100, 1_000, 10_000)]
    assert values == sorted(values)


def half_space(points: np.ndarray) -> np.ndarray:
    """L2 and Linf distance from the half of the cube with the first coordinate at most 1/2."""
    return np.maximum(points[:, 0] - 0.5, 0)


def diagonal(points: np.ndarray) -> np.ndarray:
    """L2 distance from the half below the plane through the middle, normal to the diagonal; a lower one in the cube."""
    return np.maximum((points - 0.5).sum(1), 0) / math.sqrt(points.shape[1])


def ball(points: np.ndarray) -> np.ndarray:
    """L2 distance from the ball around the middle that has half of the points."""
    lengths = np.linalg.norm(points - 0.5, axis=1)
    return np.maximum(lengths - np.median(lengths), 0)


@pytest.mark.parametrize("distance", [half_space, diagonal, ball])
def test_no_half_of_the_cube_grows_less(distance) -> None:
    # n = 5; the half-space has the growth of the bound at 0: 1 to first order
    points = np.random.default_rng(0).random((200_000, 5))
    distances = distance(points)
    for epsilon in (0.1, 0.25, 0.5):
        reached = float((distances <= epsilon).mean())
        error = 4 * math.sqrt(reached * (1 - reached) / len(points))
        assert CubeBound(n=5).vulnerable(epsilon) <= reached + error
    assert float((half_space(points) <= 0.1).mean()) == pytest.approx(0.6, abs=0.005)


def test_l1_of_a_diagonal_half() -> None:
    # n = 20: the L1 distance from the half with a sum up to n / 2 is the excess of the sum
    excess = np.maximum((np.random.default_rng(1).random((200_000, 20)) - 0.5).sum(1), 0)
    for epsilon, bound, measured in ((0.5, 0.6104, 0.6492), (1.0, 0.7124, 0.7788), (2.0, 0.8689, 0.9385)):
        assert CubeBound(n=20, p=1).vulnerable(epsilon) == pytest.approx(bound, abs=6e-5)
        assert float((excess <= epsilon).mean()) == pytest.approx(measured, abs=0.005)


def test_a_uniform_class_is_right_by_chance_at_most() -> None:
    # at epsilon 0 with the uniform density: the share of the space that has its label
    assert CubeBound(n=784, share=0.1).ceiling(0.0) == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("n, log_density", [(784, 4347.4), (3_072, 17_000.0), (1_000_000, 1e6)])
def test_large_densities(n: int, log_density: float) -> None:
    bound = CubeBound(n=n, log_density=log_density)
    with mpmath.workdps(30):  # erfc on its asymptotic side
        tail = mpmath.log(mpmath.erfc(mpmath.sqrt(mpmath.pi) * bound.first_useful) / 2)
    assert float(tail) == pytest.approx(-log_density, rel=1e-9)
    assert bound.first_useful == pytest.approx(math.sqrt(log_density / math.pi), rel=1e-3)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"n": 0}, "n must be a whole number of at least 1; it is 0"),
        ({"n": 2.5}, "n must be a whole number of at least 1; it is 2.5"),
        ({"n": 4, "p": 0}, "p must be above 0, infinity included; of L0 there is a bound of its own; it is 0"),
        ({"n": 4, "p": -1.0}, "p must be above 0"),
        ({"n": 4, "p": math.nan}, "p must be above 0"),
        ({"n": 4, "log_density": -1e-9}, "log_density must be at least 0"),
        ({"n": 4, "share": 1.1}, "share must be a share of the space, from 0 to 1; it is 1.1"),
        ({"n": 4, "share": math.nan}, "share must be a share of the space"),
        ({"n": 4, "form": "phi"}, "form must be one of sharp, paper; it is 'phi'"),
    ],
)
def test_bad_fields(fields: dict, sentence: str) -> None:
    with pytest.raises(FieldError, match=sentence):
        CubeBound(**fields)


def test_bad_epsilons() -> None:
    with pytest.raises(FieldError, match="epsilon must be at most 1, the diameter of the cube in Linf; it is 8"):
        CubeBound(n=784, p=math.inf).ceiling(8)
    with pytest.raises(FieldError, match="epsilon must be at most 28, the diameter of the cube in L2; it is 28.1"):
        CubeBound(n=784).ceiling([1, 28.1])
    with pytest.raises(FieldError, match="vulnerable must be at least 0 and below 1; it is 1"):
        CubeBound(n=784).epsilon_for(1.0)
