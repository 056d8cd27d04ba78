"""Hessians, against quadratics of known curvature, numpy's eigenvalues and Hessians that are written out."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional as F

from jobs.loss_landscape.curvature.eigenvalues import (
    Extremes,
    eigenvector_axes,
    extreme_eigenvalues,
    top_eigenvectors,
)
from jobs.loss_landscape.curvature.hessian import Hessian
from jobs.loss_landscape.curvature.map import Neighbourhood, curvature_at
from service.errors import InputError


class Quadratic(nn.Module):
    """Answers every image with its weights, so that a loss may be any function of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, size, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight.expand(len(images), -1) * images + self.bias


class Bent:
    """The loss sum_i (curvatures_i w_i^2 / 2 + w_i^3 / 6), whose Hessian is diagonal: curvatures + w."""

    def __init__(self, curvatures: np.ndarray) -> None:
        self.curvatures = torch.from_numpy(curvatures)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (self.curvatures * logits**2 / 2 + logits**3 / 6).sum(1)


def straight(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss that does not bend."""
    return logits.sum(1)


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, Tensor, Tensor]:
    """A convolutional network with batch norm, in double precision, and data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 3, 3, stride=2, bias=False), nn.BatchNorm2d(3), nn.Tanh()),
            *(nn.Flatten(), nn.Linear(27, 3)),
        ).double()
        images = torch.randn(50, 1, 8, 8, dtype=torch.float64)
        network(images)  # running statistics
        return network, images, torch.randint(3, (50,))


def written_out(network: nn.Module, images: Tensor, labels: Tensor, names: list[str]) -> np.ndarray:
    """The whole Hessian of the mean cross entropy by some parameters."""
    own = {name: dict(network.named_parameters())[name].detach() for name in names}

    def mean_loss(flat: Tensor) -> Tensor:
        parts = flat.split([tensor.numel() for tensor in own.values()])
        moved = {name: part.view_as(own[name]) for name, part in zip(names, parts, strict=True)}
        return F.cross_entropy(functional_call(network.eval(), moved, (images,)), labels)

    matrix: Tensor = hessian(mean_loss, torch.cat([tensor.reshape(-1) for tensor in own.values()]))
    return matrix.numpy()


@pytest.mark.parametrize("batch", [50, 16, 7])
def test_products_are_those_of_the_hessian_written_out(small: tuple[nn.Module, Tensor, Tensor], batch: int) -> None:
    """Whatever the batches, also short ones."""
    product = Hessian(*small, batch=batch)
    assert product.names == ["0.weight", "4.weight"]  # no biases, no batch norm
    matrix = written_out(*small, names=product.names)
    assert product.size == len(matrix) == 27 + 81
    vectors = np.random.default_rng(0).standard_normal((3, product.size))
    for vector in vectors:
        np.testing.assert_allclose(product(vector), matrix @ vector, atol=1e-10)


def test_the_parameters_may_be_chosen(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    names = ["1.bias", "4.bias"]
    product = Hessian(*small, names=names)
    matrix = written_out(*small, names=names)
    np.testing.assert_allclose(np.stack([product(unit) for unit in np.eye(6)]), matrix, atol=1e-10)


def test_extremes_of_a_network(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    product = Hessian(*small)
    values = np.linalg.eigvalsh(written_out(*small, names=product.names))
    found = extreme_eigenvalues(product, product.size, seed=0, tolerance=1e-8)
    assert (found.smallest, found.largest) == pytest.approx((values[0], values[-1]), rel=1e-6)
    rough = extreme_eigenvalues(product, product.size, seed=0)
    assert rough.ratio == pytest.approx(found.ratio, abs=0.01)
    assert rough.products < product.size


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-10, 10),
    st.floats(0.1, 10),
    st.sampled_from([3, 32, 33, 120]),
    st.integers(0, 5),
)
def test_both_ends_of_any_spectrum(lowest: float, width: float, size: int, seed: int) -> None:
    """Indefinite, definite of either sign, and of a narrow spectrum far from zero."""
    values = lowest + width * np.linspace(0, 1, size)
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    matrix = rotation * values @ rotation.T
    found = extreme_eigenvalues(lambda vector: matrix @ vector, size, seed=seed, tolerance=1e-9)
    assert found.smallest == pytest.approx(values[0], abs=1e-6)
    assert found.largest == pytest.approx(values[-1], abs=1e-6)


def test_a_matrix_of_zeros_and_the_smallest_one() -> None:
    zero = extreme_eigenvalues(lambda vector: 0 * vector, 50, seed=0)
    assert (zero.smallest, zero.largest, zero.products) == (0, 0, 1) and np.isnan(zero.ratio)
    one = extreme_eigenvalues(lambda vector: -2 * vector, 1, seed=0)
    assert (one.smallest, one.largest, one.ratio) == (-2, -2, 1)
    assert Extremes(-1.0, 4.0, 0).ratio == 0.25 and Extremes(-1.0, 0.0, 0).ratio == float("inf")


def test_the_ratio_map_of_a_quadratic() -> None:
    """Curvatures -1 and 3 among smaller ones; along the axis they become -1 + t and 3 + t."""
    curvatures = np.concatenate([[-1.0, 3.0], np.linspace(0, 1, 60)])
    network = Quadratic(62)
    axis = {"weight": torch.ones(1, 62, dtype=torch.float64)}
    images, labels = torch.ones(10, 62, dtype=torch.float64), torch.zeros(10, dtype=torch.int64)
    shared = Neighbourhood(network, [axis], images, labels, seed=3, loss=Bent(curvatures), tolerance=1e-6, batch=4)
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


def test_a_loss_that_does_not_bend() -> None:
    network = Quadratic(40)
    product = Hessian(network, torch.ones(4, 40).double(), torch.zeros(4), loss=straight)
    assert extreme_eigenvalues(product, product.size, seed=0).largest == 0


def test_top_eigenvectors_of_a_known_matrix() -> None:
    values = np.concatenate([[5.0, -4.0, 3.0], np.linspace(-1, 1, 97)])
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((100, 100)))[0]
    matrix = rotation * values @ rotation.T
    found, vectors = top_eigenvectors(lambda vector: matrix @ vector, 100, 3, seed=0, tolerance=1e-10)
    np.testing.assert_allclose(found, [5, -4, 3], rtol=1e-8)
    np.testing.assert_allclose(np.abs(vectors @ rotation[:, :3]), np.eye(3), atol=1e-6)
    assert (vectors[np.arange(3), np.abs(vectors).argmax(1)] > 0).all()


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


def test_tied_weights_are_moved_once() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    network = nn.Sequential(first, nn.Tanh(), second).double()
    images, labels = torch.randn(8, 4, dtype=torch.float64), torch.randint(4, (8,))
    product = Hessian(network, images, labels, weights=network.state_dict())
    assert product.names == ["0.weight"] and product.size == 16
    matrix = written_out(network, images, labels, ["0.weight"])
    np.testing.assert_allclose(np.stack([product(unit) for unit in np.eye(16)]), matrix, atol=1e-10)


def test_bad_input(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, images, labels = small
    with pytest.raises(InputError, match=r"no parameters \['5.weight'\]"):
        Hessian(network, images, labels, names=["4.weight", "5.weight"])
    with pytest.raises(InputError, match="no parameters"):
        Hessian(nn.ReLU(), images, labels)
    with pytest.raises(InputError, match="as many labels as images: 7 and 50"):
        Hessian(network, images, labels[:7])
    with pytest.raises(InputError, match="one number for each of 50 images"):
        Hessian(network, images, labels, loss=F.cross_entropy)(np.ones(108))
    with pytest.raises(InputError, match="eigenvectors must be 1 to 2, .*; it is 3"):
        top_eigenvectors(lambda vector: vector, 2, 3, seed=0)
