"""Sharpness, against closed forms of quadratics, brute force in the plane, and other weights of the same function."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.common.curvature.coordinates import Scaled, scale_of
from jobs.common.curvature.eigenvalues import ends
from jobs.common.curvature.hessian import Hessian
from jobs.common.curvature.mean_loss import MeanLoss
from jobs.common.curvature.sharpness import average_case, worst_case
from tests.jobs.common.curvature.made import Quadratic
from tests.jobs.common.curvature.matrices import Dense


class Bowl:
    """The loss w A w / 2 + b w of `Quadratic`, whose logits are its weights."""

    def __init__(self, matrix: np.ndarray, slope: np.ndarray) -> None:
        self.matrix, self.slope = torch.from_numpy(matrix), torch.from_numpy(slope)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return torch.einsum("ni,ij,nj->n", logits, self.matrix, logits) / 2 + logits @ self.slope


def bowl(matrix: np.ndarray, slope: np.ndarray | None = None) -> MeanLoss:
    size = len(matrix)
    network = Quadratic(size)
    loss = Bowl(matrix, np.zeros(size) if slope is None else slope)
    images, labels = torch.ones(3, size, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    return MeanLoss(network, images, labels, names=["weight"], loss=loss)


@pytest.mark.parametrize("seed", range(3))
def test_the_worst_case_of_a_bowl_is_its_largest_eigenvalue(seed: int) -> None:
    """rho^2 lambda / 2, of the matrix in the coordinates of the ball."""
    random = np.random.default_rng(seed)
    root = random.standard_normal((8, 8))
    scale = random.uniform(0.2, 2, 8)
    matrix = root @ root.T
    largest = np.linalg.eigvalsh(scale[:, None] * matrix * scale)[-1]
    rise = worst_case(bowl(matrix), torch.from_numpy(scale), 0.3, "L2", steps=60, seed=seed)
    assert rise == pytest.approx(0.3**2 * largest / 2, rel=1e-3)


def test_the_worst_case_of_a_slope_is_the_dual_norm() -> None:
    slope, scale = np.array([3.0, -4.0, 1.0]), np.array([1.0, 0.5, 2.0])
    flat = bowl(np.zeros((3, 3)), slope)
    l2 = worst_case(flat, torch.from_numpy(scale), 0.1, "L2", steps=3, seed=0)
    linf = worst_case(flat, torch.from_numpy(scale), 0.1, "Linf", steps=3, seed=0)
    assert l2 == pytest.approx(0.1 * np.linalg.norm(scale * slope))
    assert linf == pytest.approx(0.1 * np.abs(scale * slope).sum())


@pytest.mark.parametrize("ball", ["L2", "Linf"])
def test_the_worst_case_in_the_plane_against_all_of_it(ball) -> None:
    """A saddle with a slope, where the loss falls along some ways."""
    matrix, slope = np.array([[2.0, 1.0], [1.0, -3.0]]), np.array([0.1, 0.3])
    loss, scale = bowl(matrix, slope), torch.tensor([1.5, 0.5], dtype=torch.float64)
    side = np.linspace(-0.4, 0.4, 401)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    inside = points[np.linalg.norm(points, axis=1) <= 0.4] if ball == "L2" else points
    moved = inside * scale.numpy()
    brute = (np.einsum("ni,ij,nj->n", moved, matrix, moved) / 2 + moved @ slope).max()
    rise = max(worst_case(loss, scale, 0.4, ball, steps=40, seed=seed) for seed in range(3))
    assert rise == pytest.approx(brute, rel=5e-3)


def test_the_average_case_of_a_bowl_is_its_trace() -> None:
    """rho^2 / 2 of the trace in the coordinates of the steps; of a slope it is nothing."""
    values, scale = np.array([1.0, 5.0, -2.0, 3.0]), np.array([1.0, 0.5, 2.0, 0.1])
    rises = average_case(bowl(np.diag(values), np.ones(4)), torch.from_numpy(scale), 0.2, range(4000))
    expected = 0.2**2 / 2 * (values * scale**2).sum()
    error = np.std(rises) / math.sqrt(len(rises))
    assert abs(np.mean(rises) - expected) < 3.5 * error and error < 0.2


def test_a_loss_that_is_not_finite_nearby_is_infinitely_sharp() -> None:
    broken = bowl(np.array([[np.inf]]))
    assert worst_case(broken, torch.ones(1, dtype=torch.float64), 1.0, "L2", steps=3, seed=0) == math.inf


def rescaled(network: nn.Sequential, factor: float) -> nn.Sequential:
    """Another network of the same function: the first layer times a factor, the next over it."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in (other[0].weight, other[0].bias):
            parameter *= factor
        other[2].weight /= factor
    return other


def test_adaptive_sharpness_is_of_the_function_and_not_of_its_weights() -> None:
    """Also curvature in coordinates of weights or of filters; the plain ones change a hundredfold."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double()
        images, labels = torch.randn(40, 6, dtype=torch.float64), torch.randint(3, (40,))
    other = rescaled(network, 16.0)
    torch.testing.assert_close(network(images), other(images))
    names = [name for name, _ in network.named_parameters()]
    results: list[dict[str, float]] = []
    for each in (network, other):
        loss, hessian = MeanLoss(each, images, labels, names=names), Hessian(each, images, labels)
        result: dict[str, float] = {}
        for coordinates in ("elementwise", "filter", "weights"):
            scale = scale_of(loss.weights, coordinates)
            ones = scale_of(hessian.weights, coordinates)
            result[f"{coordinates} largest"] = ends(Scaled(hessian, ones), 1, 1, seed=0, tolerance=1e-8).largest[0]
            result[f"{coordinates} worst"] = worst_case(loss, scale, 0.2, "L2", steps=15, seed=1)
            result[f"{coordinates} average"] = float(np.mean(average_case(loss, scale, 0.1, range(5))))
        results.append(result)
    for name, value in results[0].items():
        if name.startswith("weights"):
            assert results[1][name] != pytest.approx(value, rel=1)
        else:
            assert results[1][name] == pytest.approx(value, rel=1e-6), name


def test_coordinates() -> None:
    weights = {"a": torch.tensor([[3.0, -4.0], [0.0, 0.0]]), "b": torch.tensor([-2.0])}
    assert scale_of(weights, "filter").tolist() == [5, 5, 0, 0, 0]
    assert scale_of(weights, "elementwise").tolist() == [3, 4, 0, 0, 2]
    assert scale_of(weights, "weights").tolist() == [1] * 5
    matrix = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
    scaled = Scaled(Dense(matrix + matrix.T), torch.arange(5.0).double())
    expected = torch.diag(torch.arange(5.0).double())
    torch.testing.assert_close(
        scaled.products(torch.eye(5, dtype=torch.float64)), expected @ (matrix + matrix.T) @ expected
    )
