"""The search for the nearest error on a sphere: classifiers of which it is known."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jobs.inevitability.bounds.adversarial_spheres import points
from jobs.inevitability.spheres.nearest import along, nearest_errors


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cap(level: float):
    """Label 1 where the first coordinate is at least a level: a cap of the unit sphere of radius acos(level)."""

    def classify(where: Tensor) -> Tensor:
        first = where[:, 0] - level
        return torch.stack([-first, first], dim=1)

    return classify


def test_a_cap_is_as_far_as_its_edge() -> None:
    drawn = points(200, 30, 1.0, stream())
    angles = nearest_errors(cap(0.5), drawn, 0, 100, stream(1))
    centre = torch.acos(drawn[:, 0].double())
    expected = (centre - math.acos(0.5)).clamp_min(0)
    assert torch.allclose(angles, expected, atol=1e-4)
    # the same classifier of a sphere of another radius: a level of 0.65 of 1.3
    outer = nearest_errors(cap(0.65), drawn * 1.3, 0, 100, stream(1))
    assert torch.allclose(outer, expected, atol=1e-4)


def test_two_caps() -> None:
    """The nearer one is not always the first that is met, but none is ever said to be nearer than it is."""

    def classify(where: Tensor) -> Tensor:
        margin = torch.maximum(where[:, 0], where[:, 1]) - 0.6
        return torch.stack([-margin, margin], dim=1)

    drawn = points(200, 10, 1.0, stream(2))
    angles = nearest_errors(classify, drawn, 0, 200, stream(3))
    exact = torch.stack([torch.acos(drawn[:, axis].double()) - math.acos(0.6) for axis in (0, 1)]).amin(0).clamp_min(0)
    assert bool((angles >= exact - 1e-4).all())
    assert float((angles <= exact + 1e-3).double().mean()) > 0.9


def test_an_ellipsoid_against_its_exact_distance() -> None:
    # label 1 where 2 x_1^2 + x_2^2 + ... > 1.25: again |x_1| above a level, two caps opposite to each other
    def classify(where: Tensor) -> Tensor:
        margin = where.square().sum(1) + where[:, 0].square() - 1.25
        return torch.stack([-margin, margin], dim=1)

    drawn = points(200, 12, 1.0, stream(4))
    exact = (torch.acos(drawn[:, 0].abs().double()) - math.acos(0.5)).clamp_min(0)
    angles = nearest_errors(classify, drawn, 0, 200, stream(5))
    assert torch.allclose(angles, exact, atol=1e-3)


def test_no_error_and_nothing_but_errors() -> None:
    drawn = points(5, 4, 1.0, stream())
    constant = lambda where: torch.stack([where.sum(1) * 0 + 1, where.sum(1) * 0], dim=1)  # noqa: E731
    assert bool(nearest_errors(constant, drawn, 0, 5, stream()).isinf().all())
    assert nearest_errors(constant, drawn, 1, 5, stream()).tolist() == [0.0] * 5


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0, math.pi))
def test_great_circles(seed: int, angle: float) -> None:
    start = points(1, 8, 1.0, stream(seed)).double()
    other = points(1, 8, 1.0, stream(seed + 1)).double()
    tangent = other - (other * start).sum() * start
    moved = along(start, tangent / tangent.norm(), torch.tensor([angle], dtype=torch.float64))
    assert abs(float(moved.norm()) - 1) < 1e-12
    assert abs(float((moved * start).sum()) - math.cos(angle)) < 1e-6
