"""Volumes of bowls against closed forms, and masses under a prior against quadrature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi2

from jobs.common.curvature.hessian import Hessian
from jobs.common.mean_loss.losses import cross_entropy
from jobs.generalization.basins.basin import LN10, Basin, Measure, Prior, compare, doubts
from jobs.generalization.basins.preconditioner import hessian_diagonal, spread, squared_gradients
from jobs.generalization.basins.radius import ScanParams, radii
from jobs.generalization.basins.rays import Convention, filters_of, rays
from jobs.generalization.basins.stacked_loss import StackedLoss
from jobs.generalization.basins.volume import (
    bootstrap,
    largest_share,
    log_ball,
    log_mean,
    log_prior_masses,
    log_volumes,
)
from service.errors import InputError
from tests.jobs.generalization.basins.bowl import Bowl, bowl_loss, own_value, weights

CUT = 0.3


def basin_of(
    bowl: Bowl,
    convention: Convention,
    count: int,
    curvature: torch.Tensor | None = None,
    cap: float = 1e3,
    tolerance: float = 1e-8,
    deviation: float | None = None,
) -> Basin:
    """curvature: (filters, length), that the rays are drawn by."""
    loss, filters = bowl_loss(bowl), filters_of(bowl)
    spreads = None if curvature is None else spread(loss.layout.embed({"weight": curvature}), filters, 1e-12)
    drawn = rays(filters, loss.centre, convention, spreads, list(range(count)), cap)
    measured = radii(
        lambda number, r: loss.along(loss.centre[None], drawn.directions, number, r),
        drawn.caps,
        [CUT],
        ScanParams(smallest=1e-6, tolerance=tolerance),
    )
    square = float(bowl.weight.detach().square().sum())
    prior = None if deviation is None else Prior(deviation, square, drawn.lengths.numpy(), drawn.slopes.numpy())
    return Basin(
        Measure(convention, "loss", CUT, "zero", cap, filters.n),
        filters.count,
        filters.log_scale,
        0.0,
        measured.radius[0].numpy(),
        measured.censored[0].numpy(),
        measured.crossings[0].numpy(),
        measured.not_finite.numpy(),
        seed=0,
        prior=prior,
    )


def log_ellipsoid(curvature: torch.Tensor) -> float:
    """ln of the volume of the weights with sum curvature x^2 / 2 < CUT."""
    return log_ball(curvature.numel()) + 0.5 * float((2 * CUT / curvature).log().sum())


def log_volume_of_weights(basin: Basin) -> float:
    return float(basin.log10_volume.value * LN10 + basin.log_scale)


def test_the_unit_ball():
    volumes = [1, 2, math.pi, 4 / 3 * math.pi, math.pi**2 / 2]
    assert [math.exp(log_ball(n)) for n in range(5)] == pytest.approx(volumes)


@pytest.mark.parametrize("shape", [(2, 3), (50, 20), (500, 200)])
def test_round_bowls_of_any_size_have_their_volume(shape):
    """Round in units of the filters, where every ray has the same radius: one is as good as many."""
    weight = weights(*shape)
    curvature = 3 / weight.square().sum(1, keepdim=True).expand(shape)
    basin = basin_of(Bowl(weight, curvature), "gaussian", 3)
    assert log_volume_of_weights(basin) == pytest.approx(log_ellipsoid(curvature), abs=2e-8 * weight.numel())
    assert basin.radius == pytest.approx(math.sqrt(2 * CUT / 3), rel=1e-8)


@pytest.mark.parametrize("shape", [(2, 3), (50, 20), (100, 100)])
def test_long_bowls_of_any_size_have_their_volume_by_rays_drawn_by_the_hessian(shape):
    weight = weights(*shape)
    curvature = torch.logspace(-3, 3, weight.numel(), dtype=torch.float64).view(shape)
    basin = basin_of(Bowl(weight, curvature), "hessian", 3, curvature)
    assert log_volume_of_weights(basin) == pytest.approx(log_ellipsoid(curvature), abs=2e-8 * weight.numel())


@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (2, 5)])
def test_long_bowls_of_few_weights_have_their_volume_by_round_rays(shape):
    weight = weights(*shape)
    curvature = torch.linspace(1, 3, weight.numel(), dtype=torch.float64).view(shape) / weight.square().sum(
        1, keepdim=True
    )
    basin = basin_of(Bowl(weight, curvature), "gaussian", 4000, tolerance=1e-5)
    logs = log_volumes(basin.radius, weight.numel())
    terms = np.exp(logs - logs.max())
    error = terms.std() / terms.mean() / math.sqrt(len(terms))
    assert error < 0.1
    assert log_volume_of_weights(basin) == pytest.approx(log_ellipsoid(curvature), abs=4 * error)


def test_long_bowls_of_many_weights_look_smaller_by_round_rays_and_it_is_said():
    weight = weights(20, 20)
    curvature = torch.logspace(-4, 4, 400, dtype=torch.float64).view(20, 20)
    basin = basin_of(Bowl(weight, curvature), "gaussian", 200, tolerance=1e-5)
    assert log_volume_of_weights(basin) < log_ellipsoid(curvature) - 50
    assert basin.dominated and "carried by one ray" in doubts([basin])[0]


def test_the_same_region_has_the_same_volume_whatever_the_rays_are_drawn_by():
    """Also where it is cut off: the cap bounds the same weights for all of them."""
    weight = weights(1, 3)
    curvature = torch.tensor([[0.02, 0.5, 4.0]]).double()
    bowl = Bowl(weight, curvature)
    plain, drawn = (
        basin_of(bowl, convention, 6000, by, cap=0.5, tolerance=1e-4)
        for convention, by in (("gaussian", None), ("hessian", curvature))
    )
    assert 0.1 < plain.censored.mean() < 0.9
    assert plain.log10_volume.value == pytest.approx(drawn.log10_volume.value, abs=0.02)


def test_in_the_released_convention_every_filter_moves_by_its_norm():
    """A bowl that is round in the weights has one radius then: each direction has the norm of all the weights."""
    weight = weights(6, 7)
    basin = basin_of(Bowl(weight, torch.full_like(weight, 2.0)), "filter", 5)
    assert basin.radius == pytest.approx(math.sqrt(CUT) / float(weight.norm()), rel=1e-8)
    assert math.isnan(basin.row()["log10_volume_of_weights"])


def test_the_diagonal_of_a_diagonal_hessian_is_exact_after_one_probe():
    weight = weights(4, 5)
    curvature = torch.logspace(-1, 1, 20, dtype=torch.float64).view(4, 5)
    bowl = Bowl(weight, curvature)
    loss = bowl_loss(bowl)
    hessian = Hessian(bowl, torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), loss=own_value)
    diagonal = hessian_diagonal(hessian, loss.layout, 1, seed=0)
    torch.testing.assert_close(diagonal, loss.layout.embed({"weight": curvature}))


def test_squared_gradients_are_the_mean_over_minibatches():
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    inputs, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    loss = StackedLoss(network, inputs, labels, cross_entropy)
    each = []
    for index in range(6):
        network.zero_grad()
        cross_entropy(network(inputs[index : index + 1]), labels[index : index + 1]).mean().backward()
        each.append(torch.cat([network.weight.grad.flatten(), network.bias.grad]).double().square())
    squares = squared_gradients(loss, 1, 400, seed=0)
    torch.testing.assert_close(squares, torch.stack(each).mean(0), rtol=0.3, atol=2e-3)
    whole = squared_gradients(loss, 6, 1, seed=0)
    network.zero_grad()
    cross_entropy(network(inputs), labels).mean().backward()
    expected = torch.cat([network.weight.grad.flatten(), network.bias.grad]).double().square()
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-8)


def test_a_spread_has_determinant_one_and_is_even_without_curvature():
    filters = filters_of(Bowl(weights(3, 4), torch.ones(3, 4).double()))
    values = spread(torch.logspace(-6, 3, 15).double(), filters, 0.1)
    assert float(values.log().sum()) == pytest.approx(0, abs=1e-12)
    assert torch.equal(spread(torch.zeros(15), filters, 0.1), torch.ones(12).double())


@given(
    n=st.integers(1, 60),
    radius=st.floats(1e-3, 30),
    length=st.floats(0.05, 20),
    cosine=st.floats(-1, 1),
    norm=st.floats(0, 20),
    deviation=st.floats(0.2, 3),
)
@settings(max_examples=60, deadline=None)
def test_the_prior_along_a_ray_is_that_of_quadrature(n, radius, length, cosine, norm, deviation):
    slope = cosine * norm * length
    one = lambda value: np.array([value])  # noqa: E731
    mass = log_prior_masses(one(radius), n, one(length), one(slope), norm**2, deviation)[0]

    def log_density(t: float) -> float:
        exponent = -(norm**2 + 2 * t * slope + t**2 * length**2) / (2 * deviation**2)
        return (n - 1) * math.log(t) + exponent if t > 0 else (exponent if n == 1 else -math.inf)

    top = max(log_density(t) for t in np.linspace(0, radius, 4001))
    breaks = np.linspace(0, radius, 65)
    integral = sum(
        quad(lambda t: math.exp(log_density(t) - top), low, high, epsabs=1e-13, epsrel=1e-10)[0]
        for low, high in zip(breaks, breaks[1:], strict=False)
    )
    constant = math.log(n) + log_ball(n) - 0.5 * n * math.log(2 * math.pi * deviation**2)
    assert mass == pytest.approx(constant + top + math.log(integral), abs=1e-7)


@pytest.mark.parametrize("n", [1, 10, 1000, 100_000])
def test_around_zero_the_prior_of_a_ball_is_the_chi_square_distribution(n):
    radius = math.sqrt(n) * np.array([0.9, 1.0, 1.1])
    masses = log_prior_masses(radius, n, np.ones(3), np.zeros(3), 0.0, 1.0)
    expected = chi2.logcdf(radius**2, n)
    kept = np.isfinite(expected)
    assert kept.any() and masses[kept] == pytest.approx(expected[kept], abs=1e-6 * math.sqrt(n))


def test_the_prior_of_a_bowl_is_the_probability_of_drawing_its_weights():
    """Two weights, by counting draws of the prior."""
    weight = torch.tensor([[0.8, -0.5]]).double()
    curvature = torch.tensor([[1.0, 3.0]]).double()
    basin = basin_of(Bowl(weight, curvature), "gaussian", 4000, tolerance=1e-5, deviation=0.9)
    draws = 0.9 * torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0)).double()
    share = (0.5 * (curvature * (draws - weight).square()).sum(1) < CUT).double().mean()
    assert basin.log10_mass is not None
    assert 10**basin.log10_mass.value == pytest.approx(float(share), rel=0.03)
    assert basin.log10_mass.low < basin.log10_mass.value < basin.log10_mass.high


def test_logs_neither_overflow_nor_vanish():
    logs = log_volumes(np.array([1e-30, 1e-20]), 10**6)
    assert log_mean(logs) == pytest.approx(log_ball(10**6) - 2e7 * math.log(10) - math.log(2))
    assert largest_share(logs) == 1.0 and largest_share(np.zeros(8)) == pytest.approx(1 / 8)


def test_intervals_of_a_mean_are_those_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap(lambda rays: values[rays].mean(-1), 400, seed=0)
    error = 1.96 * values.std() / 20
    assert interval.value == values.mean()
    assert (interval.high - interval.low) / 2 == pytest.approx(error, rel=0.15)


def test_two_bowls_compare_as_their_sizes_do():
    weight = weights(5, 8)
    curvature = 1 / weight.square().sum(1, keepdim=True).expand(5, 8)
    large, small = (basin_of(Bowl(weight, factor * curvature), "gaussian", 20) for factor in (1, 25))
    comparison = compare(large, small)
    assert comparison.radius_ratio.value == pytest.approx(5, rel=1e-6)
    assert comparison.log10_volume_gap.value == pytest.approx(40 * math.log10(5), rel=1e-6)
    assert comparison.log10_volume_gap.low <= comparison.log10_volume_gap.value <= comparison.log10_volume_gap.high


def test_basins_of_different_measures_are_not_compared():
    bowls = [Bowl(weights(*shape), torch.ones(shape).double()) for shape in ((2, 3), (2, 4))]
    one, other = (basin_of(bowl, "gaussian", 4) for bowl in bowls)
    with pytest.raises(InputError, match="basins to compare must be of one n; they are of 6 and 8"):
        compare(one, other)
    with pytest.raises(InputError, match="of one convention; they are of gaussian and filter"):
        compare(one, basin_of(bowls[0], "filter", 4))
    with pytest.raises(InputError, match="must have as many rays; they have 4 and 5"):
        compare(one, basin_of(bowls[0], "gaussian", 5))
