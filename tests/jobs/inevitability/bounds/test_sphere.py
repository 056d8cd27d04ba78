"""The bound on the sphere: mpmath, closed forms in three dimensions, caps by Monte Carlo."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from jobs.inevitability.bounds import caps
from jobs.inevitability.bounds.sphere import SphereBound
from service.errors import FieldError

# n, epsilon, tail beyond a hemisphere, the paper's bound of it, logarithm of the tail: computed with mpmath
TABLE = [
    (3, 0.1, 0.450083291677, 0.620421726642, -0.798322620731),
    (3, 0.5, 0.260287230698, 0.488041015788, -1.34596952428),
    (3, 1.0, 0.0792645075961, 0.230534252224, -2.53496482183),
    (10, 0.3, 0.188809712277, 0.417965733155, -1.66701558445),
    (10, 0.5, 0.0678276730395, 0.203445763527, -2.69078501038),
    (10, 1.0, 5.82463170667e-4, 6.96153120638e-3, -7.44824460085),
    (50, 0.2, 0.0811188375175, 0.235191353041, -2.51184006965),
    (100, 0.1, 0.16027967445, 0.381991917905, -1.83083502435),
    (100, 0.2, 0.0232047472271, 0.0865220635251, -3.76339839939),
    (100, 0.5, 1.96514054333e-7, 2.64627960266e-6, -15.4425318849),
    (784, 0.05, 0.0809137096675, 0.235485526052, -2.51437200491),
    (784, 0.1, 2.55784237043e-3, 1.24958857617e-2, -5.96859119992),
    (784, 0.2, 9.91571339014e-9, 9.90782566443e-8, -18.429145127),
    (784, 0.3, 1.38081847448e-17, 3.12366083952e-16, -38.8212701601),
    (3072, 0.1, 1.46274999687e-8, 1.34412040218e-7, -18.0403625204),
    (3072, 0.2, 5.03053085958e-29, 1.32636442315e-27, -65.1594421796),
    (150_528, 0.02, 4.25291516645e-15, 5.27741014215e-14, -33.0911717256),
    (150_528, 0.05, 3.64578036019e-84, 1.20426786045e-82, -192.123577378),
]


@pytest.mark.parametrize("n, epsilon, tail, paper, log_tail", TABLE)
def test_table(n: int, epsilon: float, tail: float, paper: float, log_tail: float) -> None:
    assert SphereBound(n=n).ceiling(epsilon) == pytest.approx(tail, rel=1e-9)
    assert SphereBound(n=n).log_ceiling(epsilon) == pytest.approx(log_tail, rel=1e-9)
    assert SphereBound(n=n, form="paper").ceiling(epsilon) == pytest.approx(paper, rel=1e-9)


def test_tail_too_small_for_a_float() -> None:
    bound = SphereBound(n=150_528)
    assert bound.log_ceiling(0.5) == pytest.approx(-19662.598705912, rel=1e-9)
    assert bound.ceiling(0.5) == 0 and bound.vulnerable(0.5) == 1


# n, share of the class's complement, epsilon, share within epsilon of it: rounded to 9 digits
CAPS = [
    (3, 0.01, 0.5, 0.117686783),
    (10, 0.1, 0.3, 0.349871305),
    (100, 0.01, 0.1, 0.0925558003),
    (500, 0.01, 0.1, 0.463535351),
    (784, 0.01, 0.1, 0.681652500),
    (784, 0.001, 0.2, 0.993950335),
]


@pytest.mark.parametrize("n, rest, epsilon, reached", CAPS)
def test_caps_of_any_measure(n: int, rest: float, epsilon: float, reached: float) -> None:
    assert SphereBound(n=n, share=1 - rest).vulnerable(epsilon) == pytest.approx(reached, abs=6e-10)


@pytest.mark.parametrize("n, share, radius", [(3, 0.01, 0.200334842), (10, 0.1, 1.138824644), (500, 0.01, 1.466696790)])
def test_radius_of_a_cap(n: int, share: float, radius: float) -> None:
    assert caps.radius(math.log(share), n) == pytest.approx(radius, abs=6e-10)


def quadrature(radius: float, n: int) -> mpmath.mpf:
    """log mu(r) by its definition, the integral of sin^(n - 2) over the angle, with 40 digits."""
    with mpmath.workdps(40):
        scale = mpmath.loggamma(mpmath.mpf(n) / 2) - mpmath.loggamma(mpmath.mpf(n - 1) / 2) - mpmath.log(mpmath.pi) / 2
        top = (n - 2) * mpmath.log(mpmath.sin(min(radius, mpmath.pi / 2)))
        width = mpmath.mpf(1) / (1 + mpmath.sqrt(n) + n * abs(mpmath.cos(radius)))
        ends = [max(mpmath.mpf(0), radius - width * step) for step in (400, 100, 40, 20, 10, 5, 2, 1, 0)]
        ends = sorted(set(ends))
        area = mpmath.quad(lambda t: mpmath.exp((n - 2) * mpmath.log(mpmath.sin(t)) - top) if t else 0, ends)
        return mpmath.log(area) + top + scale


@pytest.mark.parametrize("n", [4, 31, 784, 150_528, 1_000_000])
@pytest.mark.parametrize("radius", [1e-3, 0.3, 1.2, 1.5, 1.57])
def test_measure_against_quadrature(n: int, radius: float) -> None:
    log_measure = caps.log_measure(radius, n)
    assert math.isfinite(log_measure)
    # of the measure itself, but for what a * log(x) loses where it is millions
    assert log_measure == pytest.approx(float(quadrature(radius, n)), rel=1e-14, abs=2e-11 * max(1, n / 1e5))


@settings(deadline=None)
@given(st.floats(1e-6, math.pi - 1e-6))
def test_two_and_three_dimensions_in_closed_form(radius: float) -> None:
    # Archimedes: a cap of the ordinary sphere has the share (1 - cos r) / 2; an arc of the circle r / pi
    assert caps.log_measure(radius, 3) == pytest.approx(math.log(math.sin(radius / 2) ** 2), abs=1e-9)
    assert caps.log_measure(radius, 2) == pytest.approx(math.log(radius / math.pi), abs=1e-9)


@settings(deadline=None)
@given(st.integers(2, 10**6), st.floats(-1e6, -1e-12))
def test_radius_is_the_inverse_of_the_measure(n: int, log_share: float) -> None:
    radius = caps.radius(log_share, n)
    if radius == 0:  # smaller than any float
        assert caps.log_measure(1e-300, n) >= log_share
    else:
        slope = n * max(1.0, abs(log_share)) ** 0.5 + n / math.tan(min(radius, math.pi - radius))
        assert caps.log_measure(radius, n) == pytest.approx(log_share, rel=1e-9, abs=1e-14 * slope)


@pytest.mark.parametrize("n, epsilon", [(3, 0.5), (10, 0.3), (50, 0.2)])
def test_monte_carlo(n: int, epsilon: float) -> None:
    points = np.random.default_rng(0).standard_normal((100_000, n))
    beyond = points[:, 0] / np.linalg.norm(points, axis=1) > math.sin(epsilon)  # farther than epsilon from a hemisphere
    test = binomtest(int(beyond.sum()), len(points), float(SphereBound(n=n).ceiling(epsilon)))
    assert test.pvalue > 1e-3


@settings(deadline=None)
@given(st.integers(2, 10**6), st.floats(0, 20), st.floats(0.001, 0.5))
def test_it_falls_and_is_below_the_papers(n: int, log_density: float, share: float) -> None:
    angles = np.linspace(0, math.pi, 30)
    sharp = SphereBound(n=n, log_density=log_density, share=share).log_ceiling(angles)
    paper = SphereBound(n=n, log_density=log_density, share=share, form="paper").log_ceiling(angles)
    assert (np.diff(sharp[sharp > -np.inf]) <= 1e-9).all() and (sharp <= paper + 1e-9).all()
    assert (sharp[angles > math.pi / 2] == -np.inf).all()  # a hemisphere reaches all points within pi/2


@settings(deadline=None)
@given(st.integers(2, 10**5), st.floats(0, 1e4), st.floats(0.01, 0.99), st.sampled_from(["sharp", "paper"]))
def test_first_useful(n: int, log_density: float, share: float, form: str) -> None:
    bound = SphereBound(n=n, log_density=log_density, share=share, form=form)  # type: ignore[arg-type]
    first = bound.first_useful
    if bound.unmet or first >= math.pi:
        return
    assert bound.log_ceiling(min(first + 1e-6, math.pi)) < 1e-3
    assert first == 0 or bound.log_ceiling(max(0.0, first - 1e-6)) > -1e-3


def test_first_useful_of_the_paper_in_closed_form() -> None:
    bound = SphereBound(n=784, log_density=40, form="paper")
    assert bound.first_useful == pytest.approx(math.sqrt(2 * (40 + 0.5 * math.log(math.pi / 8)) / 783), rel=1e-12)
    # beyond (n - 1) pi^2 / 8, and half the logarithm of pi / 8, it says nothing before pi/2
    assert bound.log_density_limit == pytest.approx(783 * math.pi**2 / 8 - 0.5 * math.log(math.pi / 8), rel=1e-12)


@settings(deadline=None)
@given(st.floats(0, 2), st.floats(0, 10))
def test_chords_are_angles_otherwise_measured(chord: float, log_density: float) -> None:
    by_chord = SphereBound(n=20, log_density=log_density, metric="chord")
    by_angle = SphereBound(n=20, log_density=log_density)
    assert by_chord.vulnerable(chord) == pytest.approx(by_angle.vulnerable(2 * math.asin(chord / 2)), rel=1e-9)
    assert by_chord.first_useful == pytest.approx(2 * math.sin(by_angle.first_useful / 2), abs=1e-12)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"n": 1}, "n must be a whole number of at least 2; it is 1"),
        ({"n": 3, "log_density": -0.1}, "log_density must be at least 0, since a density has a peak of at least 1"),
        ({"n": 3, "log_density": math.nan}, "log_density must be at least 0"),
        ({"n": 3, "metric": "L2"}, "metric must be one of geodesic, chord; it is 'L2'"),
    ],
)
def test_bad_fields(fields: dict, sentence: str) -> None:
    with pytest.raises(FieldError, match=sentence):
        SphereBound(**fields)


def test_bad_angles() -> None:
    with pytest.raises(
        FieldError, match="epsilon must be at most 3.14159, the diameter of the sphere in angles; it is 4"
    ):
        SphereBound(n=3).ceiling(4)
    with pytest.raises(FieldError, match="epsilon must be at least 0; it is -0.1"):
        SphereBound(n=3).ceiling([0.1, -0.1])
    with pytest.raises(FieldError, match="epsilon must be at least 0; it is nan"):
        SphereBound(n=3).ceiling(math.nan)
