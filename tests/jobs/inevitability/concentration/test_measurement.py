"""Concentration of digits against the numbers of an independent computation; halves, seeds, bad input."""

import math

import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_digits

from jobs.inevitability.concentration import METHODS, Balls, Boxes, HalfSpaces, Method, Sample, halves, measure
from jobs.inevitability.concentration.measurement import Mass, Measurement
from service.errors import FieldError, InputError

DIGITS = torch.from_numpy(load_digits().data).float() / 16
SMALL: tuple[Method, ...] = (
    HalfSpaces(exponents=False),
    Balls(counts=(2, 4), centres=60),
    Boxes(counts=(2, 4), neighbours=10),
)


def one(measurement: Measurement | None) -> Measurement:
    assert measurement is not None
    return measurement


@pytest.mark.parametrize(
    ("p", "epsilons", "train", "test"),
    [
        (2.0, (0.25, 0.5, 1.0), (0.0856, 0.1388, 0.2945), (0.096, 0.138, 0.312)),
        (math.inf, (0.05, 0.1, 0.2), (0.0902, 0.155, 0.3462), (0.092, 0.148, 0.362)),
    ],
)
def test_digits(p: float, epsilons: tuple[float, ...], train: tuple[float, ...], test: tuple[float, ...]) -> None:
    """Components and signs alone, on the first 1,297 digits and on the others."""
    samples = Sample(DIGITS[:1297]), Sample(DIGITS[1297:])
    measured = measure(HalfSpaces(exponents=False, slack=0.0), *samples, p, 0.05, epsilons)
    assert [one(each).train.adversarial_risk for each in measured] == pytest.approx(train, abs=0.01)
    assert [one(each).test.adversarial_risk for each in measured] == pytest.approx(test, abs=0.01)
    assert [one(each).ceiling for each in measured] == pytest.approx([1 - each for each in test], abs=0.01)


@pytest.mark.parametrize("method", SMALL, ids=lambda method: method.kind)
def test_a_method_measures_a_region(method: Method) -> None:
    """It holds alpha of the points of the fit, expands with epsilon, and the same seed gives it again."""
    train, test = halves(Sample(DIGITS[:600]), seed=3)
    p = method.norms[0] if method.norms else 2.0
    epsilons = [0.0, 0.1, 0.3]
    measured = [one(each) for each in measure(method, train, test, p, 0.05, epsilons, seed=1)]
    for each in measured:
        assert each.train.risk >= 0.05 and each.train.adversarial_risk >= each.train.risk
        assert each.test.adversarial_risk >= each.test.risk and each.train.points == each.test.points == 300
        assert each.holds == (each.test.risk >= 0.05)
    risks = [each.train.adversarial_risk for each in measured]
    assert risks == sorted(risks)
    again = [one(each).row() for each in measure(method, train, test, p, 0.05, epsilons, seed=1)]
    assert again == [each.row() for each in measured]
    # each epsilon gives alone what it gives among others
    (alone,) = measure(method, train, test, p, 0.05, [0.3], seed=1)
    assert one(alone).row() == measured[-1].row()


def test_constant_pixels_and_duplicates_change_nothing() -> None:
    """Every point twice and five pixels that never vary: the same shares."""
    points = DIGITS[:300]
    padded = torch.cat([points, torch.full((300, 5), 0.5)], 1).repeat(2, 1)
    for method, p in ((HalfSpaces(), math.inf), (Balls(counts=(3,)), 2.0)):
        plain, double = (one(measure(method, Sample(x), Sample(x), p, 0.05, [0.2])[0]) for x in (points, padded))
        assert double.train.risk == plain.train.risk
        assert double.train.adversarial_risk == pytest.approx(plain.train.adversarial_risk, abs=0.004)


def test_no_region_of_a_gaussian_expands_less_than_the_half_space_of_its_mass() -> None:
    """Φ(Φ⁻¹(risk) + epsilon) is the least (Gaussian isoperimetry): half-spaces are at it, balls above it."""
    points = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    train, test = halves(Sample(points), seed=0)
    methods = (HalfSpaces(), Balls(counts=(5,), centres=300))
    excess = []
    for method in methods:
        mass = one(measure(method, train, test, 2.0, 0.1, [1.0])[0]).test
        excess.append(mass.adversarial_risk - norm.cdf(norm.ppf(mass.risk) + 1.0))
    error = 3 * math.sqrt(0.39 * 0.61 / 2000)
    assert abs(excess[0]) < error and excess[1] > -error


def test_label_uncertainty_of_a_region() -> None:
    uncertainty = torch.rand(len(DIGITS), generator=torch.Generator().manual_seed(0))
    train, test = halves(Sample(DIGITS, uncertainty), seed=0)
    free, bound = (
        one(measure(Balls(counts=(3,), centres=100, gamma=gamma), train, test, 2.0, 0.02, [0.5])[0])
        for gamma in (None, 0.6)
    )
    assert bound.train.uncertainty is not None and bound.train.uncertainty >= 0.6
    assert free.train.uncertainty is not None and free.train.uncertainty < 0.6
    assert bound.train.adversarial_risk >= free.train.adversarial_risk


def test_halves_are_drawn_by_the_seed() -> None:
    sample = Sample(DIGITS[:101], torch.arange(101) / 101)
    first, second = halves(sample, seed=4)
    again, _ = halves(sample, seed=4)
    other, _ = halves(sample, seed=5)
    assert (len(first), len(second)) == (50, 51)
    assert torch.equal(first.points, again.points) and not torch.equal(first.points, other.points)
    assert first.uncertainty is not None and second.uncertainty is not None
    assert torch.cat([first.uncertainty, second.uncertainty]).sort().values.tolist() == pytest.approx(
        (torch.arange(101) / 101).tolist()
    )


def test_a_mass_is_counted() -> None:
    assert Mass(8, 2, 5, None).risk == 0.25 and Mass(8, 2, 5, None).adversarial_risk == 0.625


@pytest.mark.parametrize(
    ("method", "p", "alpha", "epsilon", "sentence"),
    [
        ("half_spaces", 2.0, 0.0, 0.1, "alpha must be above 0 and below 1; it is 0"),
        ("half_spaces", 2.0, 1.2, 0.1, "alpha must be above 0 and below 1; it is 1.2"),
        ("half_spaces", 2.0, math.nan, 0.1, "alpha must be above 0 and below 1; it is nan"),
        ("half_spaces", 2.0, 0.01, 0.1, "alpha must be at least 0.02, one of the 50 points of the fit; it is 0.01"),
        ("half_spaces", 2.0, 0.998, 0.1, "slack must be below 0.002, what alpha leaves; it is 0.005"),
        ("half_spaces", 2.0, 0.1, -0.1, "epsilon must be at least 0 and finite; it is -0.1"),
        ("half_spaces", 2.0, 0.1, math.inf, "epsilon must be at least 0 and finite; it is inf"),
        ("half_spaces", 0.5, 0.1, 0.1, "p must be at least 1; it is 0.5"),
        ("balls", 3.0, 0.1, 0.1, "norm must be L2 or Linf or L1 for balls; it is 'L3'"),
        ("boxes", 2.0, 0.1, 0.1, "norm must be Linf for boxes; it is 'L2'"),
        ("boxes", math.inf, 0.1, 0.1, "neighbours must be at most 50, the points of the fit; it is 51"),
    ],
)
def test_bad_input(method: str, p: float, alpha: float, epsilon: float, sentence: str) -> None:
    values = {"neighbours": 51} if method == "boxes" else {}
    sample = Sample(DIGITS[:50])
    with pytest.raises(FieldError) as raised:
        measure(METHODS[method].model_validate(values), sample, sample, p, alpha, [epsilon])
    assert str(raised.value) == sentence


def test_bad_samples() -> None:
    sample = Sample(DIGITS[:50])
    with pytest.raises(InputError, match=r"point 1 is not"):
        Sample(torch.tensor([[0.0], [torch.nan]]))
    with pytest.raises(InputError, match=r"floats of shape \(points, pixels\)"):
        Sample(torch.zeros(4, 2, 2))
    with pytest.raises(InputError, match=r"floats"):
        Sample(torch.zeros(4, 2, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"at least 2"):
        Sample(torch.zeros(1, 4))
    with pytest.raises(InputError, match=r"uncertainty must have one value for each of the 50 points"):
        Sample(DIGITS[:50], torch.zeros(49))
    with pytest.raises(FieldError, match=r"share must leave points on both sides, of 50; it is 1"):
        halves(sample, 0, share=1.0)
    with pytest.raises(InputError, match=r"must have 64 pixels, as those of the fit have; they have 63"):
        measure(HalfSpaces(), sample, Sample(DIGITS[:50, :63]), 2.0, 0.1, [0.1])
    with pytest.raises(InputError, match=r"gamma asks for uncertain labels"):
        measure(Balls(gamma=0.2), sample, sample, 2.0, 0.1, [0.1])


def test_more_centres_than_memory_allows() -> None:
    with pytest.raises(FieldError) as raised:
        Balls(centres=2000).check(300_000, 2.0, 0.1, [0.1])
    assert str(raised.value) == (
        "centres must be at most 894, whose distances to 300,000 points take 2 GiB; it is 2000"
    )
