"""The simplex solver against enumeration, scipy's SLSQP and nnls, and its optimality conditions."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls
from torch import Tensor

from jobs.poison_frogs.poisons.simplex import least_norm, nearest_combination, project


def problems(k: int, dimension: int, count: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, k, dimension, generator=generator, dtype=torch.float64)
    return points, 0.4 * torch.randn(count, dimension, generator=generator, dtype=torch.float64)


def distance(points: Tensor, target: Tensor, coefficients: Tensor) -> Tensor:
    return (torch.einsum("...k,...kd->...d", coefficients, points) - target).norm(dim=-1)


def least_by_enumeration(points: Tensor, target: Tensor) -> float:
    """The least distance over all faces, each by its normal equations."""
    least = float("inf")
    for size in range(1, len(points) + 1):
        for face in combinations(range(len(points)), size):
            corner = points[face[0]]
            edges = (points[list(face[1:])] - corner).T  # (dimension, size - 1)
            inner = torch.linalg.lstsq(edges, target - corner, driver="gelsd").solution if size > 1 else torch.empty(0)
            if bool((inner >= -1e-12).all()) and float(inner.sum()) <= 1 + 1e-12:
                found = corner + edges @ inner if size > 1 else corner
                least = min(least, float((found - target).norm()))
    return least


def conditions(points: Tensor, target: Tensor, coefficients: Tensor) -> float:
    """How far from optimal: the duality gap of the squared distance, as a share of the largest squared difference."""
    differences = points - target.unsqueeze(-2)
    gram = differences @ differences.mT
    slopes = torch.einsum("...ij,...j->...i", gram, coefficients)
    gap = (coefficients * slopes).sum(-1) - slopes.amin(-1)
    return float((gap / gram.diagonal(dim1=-2, dim2=-1).amax(-1).clamp(min=1e-300)).max())


@pytest.mark.parametrize(("k", "dimension"), [(1, 3), (2, 1), (3, 2), (4, 6), (5, 2), (5, 20)])
def test_against_enumeration_of_all_faces(k: int, dimension: int) -> None:
    points, target = problems(k, dimension)
    found = distance(points, target, nearest_combination(points, target))
    least = [least_by_enumeration(*each) for each in zip(points, target, strict=True)]
    torch.testing.assert_close(found, torch.tensor(least, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("k", "dimension"), [(6, 4), (12, 30)])
def test_against_slsqp(k: int, dimension: int) -> None:
    points, target = problems(k, dimension, count=6)
    found = distance(points, target, nearest_combination(points, target))
    for row, (some, aim) in enumerate(zip(points.numpy(), target.numpy(), strict=True)):
        gram, product = some @ some.T, some @ aim

        def objective(c: np.ndarray, gram: np.ndarray = gram, product: np.ndarray = product) -> float:
            return float(c @ gram @ c - 2 * product @ c)

        reference = minimize(
            objective,
            np.full(k, 1 / k),
            jac=lambda c, gram=gram, product=product: 2 * (gram @ c - product),
            bounds=[(0, 1)] * k,
            constraints={"type": "eq", "fun": lambda c: c.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        assert abs(float(found[row]) - np.linalg.norm(some.T @ reference.x - aim)) < 1e-6


@pytest.mark.parametrize(("k", "dimension"), [(25, 512), (40, 8), (100, 64)])
@pytest.mark.parametrize("uniform", [True, False])
def test_against_nnls_at_large_k(k: int, dimension: int, uniform: bool) -> None:
    """A row of weight 1e4 makes the coefficients of nnls sum to one; the conditions tell the rest."""
    points, target = problems(k, dimension, count=4)
    start = torch.full((4, k), 1 / k, dtype=torch.float64) if uniform else None
    coefficients = nearest_combination(points, target, start)
    assert float(coefficients.min()) >= 0
    torch.testing.assert_close(coefficients.sum(1), torch.ones(4, dtype=torch.float64))
    assert conditions(points, target, coefficients) < 1e-12
    for row in range(4):
        stacked = np.vstack([(points[row] - target[row]).numpy().T, np.full((1, k), 1e4)])
        reference, _ = nnls(stacked, np.append(np.zeros(dimension), 1e4))
        expected = float(distance(points[row], target[row], torch.from_numpy(reference / reference.sum())))
        assert float(distance(points[row], target[row], coefficients[row])) <= expected + 1e-8


def test_many_problems_are_as_each_alone() -> None:
    """Over several dimensions of a batch, from starts that are near."""
    points, target = problems(7, 12, count=24)
    together = nearest_combination(points.view(2, 3, 4, 7, 12), target.view(2, 3, 4, 12)).view(24, 7)
    alone = torch.stack([nearest_combination(some, aim) for some, aim in zip(points, target, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    warm = nearest_combination(points + 1e-3, target, together)
    torch.testing.assert_close(warm, nearest_combination(points + 1e-3, target), rtol=0, atol=1e-9)


@pytest.mark.parametrize("uniform", [True, False])
def test_points_that_are_alike(uniform: bool) -> None:
    """Repeated points, points at the target, one point many times: still on the simplex and optimal."""
    points, target = problems(5, 3, count=8)
    start = torch.full((8, 15), 1 / 15, dtype=torch.float64) if uniform else None
    near = points[:, :1] + 1e-6 * problems(15, 3, count=8, seed=1)[0]
    for some in (points.repeat(1, 3, 1), points[:, :1].repeat(1, 15, 1), target[:, None].repeat(1, 15, 1), near):
        coefficients = nearest_combination(some, target, start)
        assert conditions(some, target, coefficients) < 1e-12
        assert float((coefficients.sum(1) - 1).abs().max()) < 1e-12 and float(coefficients.min()) >= 0
    assert least_norm(torch.zeros(2, 4, 4)).sum(1).tolist() == [1, 1]


def test_a_target_inside_is_met() -> None:
    points, _ = problems(30, 5)
    weights = torch.rand(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inside = torch.einsum("pk,pkd->pd", weights / weights.sum(1, keepdim=True), points)
    assert float(distance(points, inside, nearest_combination(points, inside)).max()) < 1e-6
    single = nearest_combination(points.float(), inside.float())
    assert single.dtype == torch.float32 and float(distance(points.float(), inside.float(), single).max()) < 1e-5


def test_projection_against_a_grid() -> None:
    """No point of a fine grid on the simplex is nearer; the simplex itself stays."""
    steps = torch.arange(0, 101)
    pairs = torch.cartesian_prod(steps, steps)
    pairs = pairs[pairs.sum(1) <= 100]
    grid = torch.cat([pairs, 100 - pairs.sum(1, keepdim=True)], 1).double() / 100
    points = 2 * torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = project(points)
    assert float(found.min()) >= 0
    torch.testing.assert_close(found.sum(1), torch.ones(200, dtype=torch.float64))
    nearest = torch.cdist(points, grid).amin(1)
    distances = (found - points).norm(dim=1)
    assert bool((distances <= nearest + 1e-12).all()) and bool((nearest - distances < 0.01).all())
    torch.testing.assert_close(project(grid), grid)
