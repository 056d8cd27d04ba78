"""Lanczos quadrature and spectral densities, against matrices of known eigenvalues and a network's whole Hessian."""

import numpy as np
import pytest
import torch

from jobs.common.curvature.density import SpectralDensity
from jobs.common.curvature.hessian import Hessian
from jobs.common.curvature.lanczos import lanczos
from jobs.common.curvature.probes import gaussian, rademacher
from tests.jobs.common.curvature.made import small_network, written_out
from tests.jobs.common.curvature.matrices import Dense, rotated


def density(matrix, probes: int, steps: int) -> SpectralDensity:
    rule = lanczos(matrix, rademacher(matrix.size, range(probes)), steps)
    return SpectralDensity(rule.nodes.numpy(), rule.weights.numpy())


def test_a_rule_integrates_polynomials_exactly() -> None:
    """v^T H^p v of v of length 1, for all powers below twice the number of steps."""
    matrix = rotated(np.linspace(-1, 2, 40))
    starts = gaussian(40, [3, 4])
    rule = lanczos(matrix, starts, 6)
    units = starts / starts.norm(dim=1, keepdim=True)
    for power in range(12):
        expected = torch.einsum("ns,st,nt->n", units, torch.linalg.matrix_power(matrix.entries, power), units)
        torch.testing.assert_close((rule.weights * rule.nodes**power).sum(1), expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(rule.weights.sum(1), torch.ones(2, dtype=torch.float64))


def test_many_steps_find_each_eigenvalue_once() -> None:
    """Without full reorthogonalisation copies of the outliers appear, which tilts the density."""
    values = np.concatenate([[1e6, 5e5, -1e5], np.linspace(0, 1, 77)])
    rule = lanczos(rotated(values), gaussian(80, [0]), 60)
    for outlier in values[:3]:
        assert (abs(rule.nodes[0].numpy() - outlier) < 1e-3 * abs(outlier)).sum() == 1


def test_starts_do_not_touch_each_other() -> None:
    matrix = rotated(np.linspace(-1, 2, 30))
    starts = gaussian(30, [0, 1, 2])
    together, alone = lanczos(matrix, starts, 8), lanczos(matrix, starts[1:2], 8)
    torch.testing.assert_close(together.nodes[1:2], alone.nodes, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.weights[1:2], alone.weights, rtol=1e-6, atol=1e-9)


def test_a_start_that_ends_early() -> None:
    """Two different eigenvalues take two steps; a matrix of zeros takes one."""
    two = density(Dense(torch.diag(torch.tensor([3.0] * 5 + [-1.0] * 15))), 3, 10)
    assert two.bounds == pytest.approx((-1, 3))
    np.testing.assert_allclose(two.cumulative(np.array([-1.1, 0.0, 3.1])).mean, [0, 0.75, 1], atol=0.15)
    zero = density(Dense(torch.zeros(9, 9)), 2, 5)
    assert zero.bounds == (0, 0) and zero.cumulative(np.array([0.0])).mean == pytest.approx(1)
    one = density(Dense(torch.tensor([[2.0]])), 2, 5)
    assert one.bounds == (2, 2)


@pytest.mark.parametrize("layer", ["", "4"])
def test_the_density_of_a_network_is_that_of_its_whole_hessian(layer: str) -> None:
    """The share of eigenvalues below each of many places, and moments, within the intervals that are given."""
    network, images, labels = small_network()
    names = ["4.weight"] if layer else ["0.weight", "4.weight"]
    values = np.linalg.eigvalsh(written_out(network, images, labels, names))
    result = density(Hessian(network, images, labels, names=names), 40, 30)
    at = np.linspace(values[0], values[-1], 50)
    share = (values <= at[:, None]).mean(1)
    band = result.cumulative(at)
    assert abs(band.mean - share).max() < 0.1
    assert ((band.low - 0.02 <= share) & (share <= band.high + 0.02)).mean() > 0.9
    assert result.bounds == pytest.approx((values[0], values[-1]), abs=0.01 * np.ptp(values))
    assert result.mean_of(1) == pytest.approx(values.mean(), abs=0.05 * values.std())
    assert result.mean_of(2) == pytest.approx((values**2).mean(), rel=0.2)


def test_a_smoothed_density_is_that_of_the_eigenvalues_widened() -> None:
    values = np.concatenate([np.full(150, 0.0), np.full(50, 4.0)])
    at = np.linspace(-3, 7, 500)
    band = density(rotated(values), 50, 10).smoothed(at, 0.5)
    expected = np.exp(-((at[:, None] - values) ** 2) / (2 * 0.25)).mean(1) / (0.5 * np.sqrt(2 * np.pi))
    assert abs(band.mean - expected).max() < 0.03
    assert ((band.low <= expected) & (expected <= band.high)).mean() > 0.85
    assert np.trapezoid(band.mean, at) == pytest.approx(1, abs=1e-3)
    assert np.isnan(density(rotated(values), 1, 5).smoothed(at, 0.5).low).all(), "one probe says nothing of its error"


def test_products_that_are_not_finite() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        lanczos(Dense(torch.full((4, 4), torch.nan)), gaussian(4, [0]), 2)
