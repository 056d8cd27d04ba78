"""Hessians, against quadratics of known curvature, numpy's eigenvalues and Hessians that are written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.common import passes
from jobs.common.curvature.eigenvalues import ends, top_eigenvectors
from jobs.common.curvature.hessian import Hessian
from service.errors import InputError
from tests.jobs.common.curvature.made import Quadratic, small_network, straight, written_out
from tests.jobs.common.curvature.matrices import Dense, rotated


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, Tensor, Tensor]:
    return small_network()


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


def test_where_memory_runs_out_products_are_those_of_smaller_batches(
    small: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU that is made up: 50 images had room, of which 40 are left."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if len(labels) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return F.cross_entropy(logits, labels, reduction="none")

    vectors = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 108)))
    expected = Hessian(*small, batch=32).products(vectors)
    monkeypatch.setattr(passes, "device_of", lambda network: torch.device("cuda"))
    monkeypatch.setattr(passes, "largest_batch", lambda attempt, count, device: 64)
    hessian = Hessian(*small, loss=loss)
    with pytest.warns(UserWarning, match="ran out at 50 at once, .* batches of 32"):
        assert torch.equal(hessian.products(vectors), expected)
    assert torch.equal(hessian.products(vectors), expected)


def test_the_parameters_may_be_chosen(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    names = ["1.bias", "4.bias"]
    product = Hessian(*small, names=names)
    matrix = written_out(*small, names=names)
    np.testing.assert_allclose(np.stack([product(unit) for unit in np.eye(6)]), matrix, atol=1e-10)


def test_extremes_of_a_network(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    product = Hessian(*small)
    values = np.linalg.eigvalsh(written_out(*small, names=product.names))
    exact = ends(product, 1, 1, seed=0, tolerance=1e-8)
    assert (exact.smallest[0], exact.largest[0]) == pytest.approx((values[0], values[-1]), rel=1e-6)
    rough = ends(product, 1, 1, seed=0)
    assert rough.ratio == pytest.approx(exact.ratio, abs=0.01)
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
    extremes = ends(rotated(values, seed), 1, 1, seed=seed, tolerance=1e-9)
    assert extremes.smallest[0] == pytest.approx(values[0], abs=1e-6)
    assert extremes.largest[0] == pytest.approx(values[-1], abs=1e-6)
    assert max(extremes.smallest_residuals[0], extremes.largest_residuals[0]) < 1e-4


def test_a_matrix_of_zeros_and_the_smallest_one() -> None:
    zero = ends(Dense(torch.zeros(50, 50)), 1, 1, seed=0)
    assert (zero.smallest[0], zero.largest[0], zero.products) == (0, 0, 1) and np.isnan(zero.ratio)
    one = ends(Dense(torch.tensor([[-2.0]])), 1, 1, seed=0)
    assert (one.smallest[0], one.largest[0], one.ratio) == (-2, -2, 1)
    assert ends(Dense(torch.diag(torch.tensor([-1.0, 4.0]))), 1, 1, seed=0).ratio == pytest.approx(0.25)
    assert ends(Dense(torch.diag(torch.tensor([-1.0, 0.0]))), 1, 1, seed=0).ratio == float("inf")


def test_a_loss_that_does_not_bend() -> None:
    network = Quadratic(40)
    product = Hessian(network, torch.ones(4, 40).double(), torch.zeros(4), loss=straight)
    assert ends(product, 1, 1, seed=0).largest[0] == 0


def test_top_eigenvectors_of_a_known_matrix() -> None:
    values = np.concatenate([[5.0, -4.0, 3.0], np.linspace(-1, 1, 97)])
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((100, 100)))[0]
    matrix = rotation * values @ rotation.T
    found, vectors = top_eigenvectors(lambda vector: matrix @ vector, 100, 3, seed=0, tolerance=1e-10)
    np.testing.assert_allclose(found, [5, -4, 3], rtol=1e-8)
    np.testing.assert_allclose(np.abs(vectors @ rotation[:, :3]), np.eye(3), atol=1e-6)
    assert (vectors[np.arange(3), np.abs(vectors).argmax(1)] > 0).all()


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


@pytest.mark.parametrize("shift", [0.0, -20.0, 20.0])
@pytest.mark.parametrize("size", [6, 90])
def test_several_eigenvalues_at_both_ends(shift: float, size: int) -> None:
    """Indefinite and definite of either sign; each value is as near to an eigenvalue as its residual says."""
    values = np.sort(np.concatenate([[9.0, 7.0, 6.5], [-4.0, -3.0], np.linspace(-1, 1, size - 5)])) + shift
    matrix = rotated(values)
    exact = ends(matrix, 3, 2, seed=0, tolerance=1e-10)
    assert exact.products == matrix.asked
    np.testing.assert_allclose(exact.largest, values[::-1][:3], rtol=1e-7)
    np.testing.assert_allclose(exact.smallest, values[:2], rtol=1e-7)
    assert max(exact.largest_residuals.max(), exact.smallest_residuals.max()) < 1e-4
    rough = ends(matrix, 3, 2, seed=1, tolerance=0.05)
    assert rough.products <= exact.products
    for value, residual in zip(
        [*rough.largest, *rough.smallest], [*rough.largest_residuals, *rough.smallest_residuals], strict=True
    ):
        assert abs(values - value).min() <= residual + 1e-9


def test_ends_of_few_and_of_no_eigenvalues() -> None:
    two = ends(Dense(torch.diag(torch.tensor([1.0, 3.0]))), 5, 5, seed=0)
    assert two.largest.tolist() == [3, 1] and two.smallest.tolist() == [1, 3]
    zero = ends(Dense(torch.zeros(50, 50)), 2, 1, seed=0)
    assert zero.largest.tolist() == [0, 0] and zero.products == 1
    with pytest.raises(FloatingPointError):
        ends(Dense(torch.full((3, 3), torch.nan)), 1, 1, seed=0)


def test_products_of_several_vectors_are_those_of_each(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    """To the last digit: what is computed together does not change what a run finds."""
    product = Hessian(*small, batch=16)
    vectors = torch.from_numpy(np.random.default_rng(0).standard_normal((4, product.size)))
    together = product.products(vectors)
    assert torch.equal(together, torch.cat([product.products(vector[None]) for vector in vectors]))
    assert np.array_equal(together[2].numpy(), product(vectors[2].numpy()))
    whole = Hessian(*small, batch=50)  # one batch: the gradient is computed once for all calls
    assert torch.equal(whole.products(vectors), whole.products(vectors))
    assert torch.equal(whole.products(vectors[1:2])[0], Hessian(*small, batch=50).products(vectors)[1])


def test_layers_are_modules(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, images, labels = small
    every = Hessian(network, images, labels, names=[name for name, _ in network.named_parameters()])
    assert every.layers == {"0": slice(0, 27), "1": slice(27, 33), "4": slice(33, 117)}
    own = Hessian(Quadratic(3), torch.ones(2, 3).double(), torch.zeros(2), names=["weight", "bias"], loss=straight)
    assert own.layers == {"weight": slice(0, 3), "bias": slice(3, 4)}


def test_gradients_and_values_elsewhere(small: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Against finite differences."""
    product = Hessian(*small, batch=16)
    offset, along = torch.from_numpy(np.random.default_rng(0).standard_normal((2, product.size)) * 0.1)
    value, gradient = product.value_and_gradient_at(offset)
    assert value == pytest.approx(product.value_at(offset), rel=1e-12)
    ahead, behind = (product.value_at(offset + step * along) for step in (1e-5, -1e-5))
    assert float(gradient @ along) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)
    assert product.value_at(0 * offset) == product.mean_loss()
