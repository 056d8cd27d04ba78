"""Concentric spheres: the mean distance to a cap by Monte Carlo and in three dimensions by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import betainc

from jobs.inevitability.bounds import caps
from jobs.inevitability.bounds.adversarial_spheres import (
    gaussian_ceiling,
    largest_error,
    mean_distance_ceiling,
    points,
)
from service.errors import FieldError


@pytest.mark.parametrize("error", [0.01, 0.3, 0.8])
@pytest.mark.parametrize("metric", ["geodesic", "chord"])
def test_ordinary_sphere(error: float, metric: str) -> None:
    # the density of the angle from the centre of a cap is sin(angle) / 2, its measure sin^2(radius / 2)
    start = 2 * math.asin(math.sqrt(error))
    distance = (lambda a: a) if metric == "geodesic" else (lambda a: 2 * math.sin(a / 2))
    mean = quad(lambda a: distance(a - start) * math.sin(a) / 2, start, math.pi)[0]
    assert mean_distance_ceiling(error, 3, metric=metric) == pytest.approx(mean, rel=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("error, samples", [(0.01, 200_000), (1e-4, 200_000)])
def test_monte_carlo(error: float, samples: int) -> None:
    # the cosine of the angle from an axis in R^n: its square is Beta(1/2, (n - 1) / 2)
    draws = np.random.default_rng(0)
    n = 500
    cosine = np.sqrt(draws.beta(0.5, (n - 1) / 2, samples)) * draws.choice([-1, 1], samples)
    start = caps.radius(math.log(error), n)
    assert betainc((n - 1) / 2, 0.5, math.sin(start) ** 2) / 2 == pytest.approx(error, rel=1e-9)
    angles = np.maximum(np.arccos(cosine) - start, 0)
    for metric, distances in (("geodesic", angles), ("chord", 2 * np.sin(angles / 2))):
        ceiling = mean_distance_ceiling(error, n, metric=metric)  # type: ignore[arg-type]
        assert ceiling == pytest.approx(distances.mean(), abs=4 * distances.std() / math.sqrt(samples))


@pytest.mark.parametrize("error, gaussian", [(0.01, 0.10404), (1e-4, 0.16632), (1e-6, 0.21258)])
def test_the_papers_approximation(error: float, gaussian: float) -> None:
    assert gaussian_ceiling(error, 500) == pytest.approx(gaussian, abs=6e-6)
    assert mean_distance_ceiling(error, 500) == pytest.approx(gaussian, rel=0.01)
    # at once exact for n -> infinity, where errors in the middle are of the order of their share
    assert mean_distance_ceiling(1e-6, 10**6) == pytest.approx(gaussian_ceiling(1e-6, 10**6), rel=1e-4)


def test_scale_and_inverse() -> None:
    for error in (1e-200, 1e-7, 0.01, 0.6):
        distance = mean_distance_ceiling(error, 500, radius=1.3, metric="geodesic")
        assert distance == pytest.approx(1.3 * mean_distance_ceiling(error, 500, metric="geodesic"), rel=1e-12)
        assert largest_error(distance, 500, radius=1.3, metric="geodesic") == pytest.approx(error, rel=1e-6)
    assert largest_error(1.99, 500) == 0  # below any share that a float holds


def test_points_are_on_their_sphere() -> None:
    drawn = points(50, 20, 1.3, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 20) and torch.allclose(drawn.norm(dim=1), torch.full((50,), 1.3), atol=1e-5)


def test_bad_input() -> None:
    for error in (0.0, 1.0, math.nan):
        with pytest.raises(FieldError, match="error must be above 0 and below 1, the share of the sphere"):
            mean_distance_ceiling(error, 500)
    with pytest.raises(FieldError, match="n must be a whole number of at least 2; it is 1"):
        mean_distance_ceiling(0.1, 1)
    with pytest.raises(FieldError, match="radius must be above 0 and finite; it is 0"):
        mean_distance_ceiling(0.1, 5, radius=0)
    with pytest.raises(
        FieldError, match="mean_distance must be above 0 and below 2, the diameter of the sphere; it is 2.5"
    ):
        largest_error(2.5, 5)
