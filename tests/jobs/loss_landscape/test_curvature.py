"""Maps of curvature and axes along eigenvectors, against quadratics and second differences."""

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from jobs.common.curvature.hessian import Hessian
from jobs.loss_landscape.planes.axes import eigenvector_axes
from jobs.loss_landscape.surface.curvature_map import Neighbourhood, curvature_at
from tests.jobs.common.curvature.made import Bent, Quadratic, small_network


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, Tensor, Tensor]:
    return small_network()


def test_the_ratio_map_of_a_quadratic() -> None:
    """Curvatures -1 and 3 among smaller ones; along the axis they become -1 + t and 3 + t."""
    curvatures = np.concatenate([[-1.0, 3.0], np.linspace(0, 1, 60)])
    network = Quadratic(62)
    axis = {"weight": torch.ones(1, 62, dtype=torch.float64)}
    images, labels = torch.ones(10, 62, dtype=torch.float64), torch.zeros(10, dtype=torch.int64)
    shared = Neighbourhood(network, [axis], images, labels, seed=3, loss=Bent(curvatures), tolerance=1e-6)
    shared = pickle.loads(pickle.dumps(shared))
    for step in (0.0, 0.5, -0.5):
        cell = curvature_at([step], shared)
        assert cell["smallest"] == pytest.approx(step - 1, rel=1e-4)
        assert cell["largest"] == pytest.approx(step + 3, rel=1e-4)
        assert cell["ratio"] == pytest.approx((1 - step) / (3 + step), rel=1e-4)
        assert cell["loss"] == pytest.approx(curvatures.sum() * step**2 / 2 + 62 * step**3 / 6)
    assert curvature_at([0.5], shared) == curvature_at([0.5], shared)  # the same start, the same iterations
    assert not network.weight.any()


def test_axes_may_move_buffers_and_biases(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, images, labels = small
    axes = [
        {"1.running_mean": torch.ones(3).double()},
        {"4.bias": torch.arange(3.0).double(), "0.weight": torch.zeros(3, 1, 3, 3)},
    ]
    shared = Neighbourhood(network, axes, images, labels, seed=0)
    state = network.state_dict()
    moved = {"1.running_mean": state["1.running_mean"] + 0.5, "4.bias": state["4.bias"] - 2 * torch.arange(3.0)}
    expected = F.cross_entropy(functional_call(network.eval(), moved, (images,)), labels).detach()
    assert curvature_at([0.5, -2.0], shared)["loss"] == pytest.approx(expected.item())


def test_where_the_loss_is_not_finite(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, images, labels = small
    shared = Neighbourhood(network, [{"1.running_var": -torch.ones(3)}], images, labels, seed=0)
    cell = curvature_at([1e3], shared)
    assert all(np.isnan(cell[name]) for name in ("loss", "smallest", "largest", "ratio"))


def test_the_axes_of_a_network_bend_the_loss_as_their_eigenvalues_say(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Second differences of the loss along each axis."""
    network, images, labels = small
    values, axes = eigenvector_axes(Hessian(network, images, labels), 2, seed=0, tolerance=1e-8)
    step = 1e-3
    for value, axis in zip(values, axes, strict=True):
        assert sum(float(tensor.square().sum()) for tensor in axis.values()) == pytest.approx(1)
        shared = Neighbourhood(network, [axis], images, labels, seed=0)
        before, here, after = (curvature_at([at], shared)["loss"] for at in (-step, 0.0, step))
        assert (before - 2 * here + after) / step**2 == pytest.approx(value, rel=1e-4)


def test_axes_in_units_of_the_filters(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Every filter of an axis is as long as that of the weights, and points where the eigenvector does."""
    network, images, labels = small
    product = Hessian(network, images, labels)
    _, plain = eigenvector_axes(product, 1, seed=0)
    _, scaled = eigenvector_axes(product, 1, normalisation="filter", seed=0)
    for name, weight in product.weights.items():
        rows, expected = scaled[0][name].double().flatten(1), plain[0][name].flatten(1)
        torch.testing.assert_close(rows.norm(dim=1), weight.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-6)
        cosines = F.cosine_similarity(rows, expected, eps=1e-12)
        torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=1e-5, atol=1e-6)
