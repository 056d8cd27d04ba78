"""Projections onto a hyperplane in the box: linear programs, bisection, sorting, and what is out of reach."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyautoattack import fab_projections as released
from scipy.optimize import linprog
from torch import Tensor

from jobs.common.attacks.fab import PROJECTIONS

SORTED = {"Linf": released.projection_linf, "L2": released.projection_l2, "L1": released.projection_l1}
ORDERS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


def problem(seed: int, batch: int, pixels: int, closeness: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points with pixels at the faces of the box, normals of very different slopes, hyperplanes within reach."""
    stream = torch.Generator().manual_seed(seed)
    points = (torch.rand(batch, pixels, generator=stream) * 1.5 - 0.25).clamp(0, 1)
    normals = torch.randn(batch, pixels, generator=stream) * torch.rand(batch, pixels, generator=stream) ** 3
    sides = torch.where(torch.rand(batch, generator=stream) < 0.5, -1.0, 1.0)
    rooms = torch.where(normals * sides.unsqueeze(1) > 0, points, 1 - points)
    return points, normals, sides * closeness * (normals.abs() * rooms).sum(1)


def least(norm: str, points: np.ndarray, normal: np.ndarray, gap: float) -> float:
    """The least norm of a way onto the hyperplane, by a linear program or by bisection, in float64."""
    low, high = -points, 1 - points
    steepest = np.abs(normal).max()  # the solver takes an equation of tiny numbers for fulfilled
    normal, gap = normal / steepest, gap / steepest
    if norm == "L2":
        shortest, longest = 0.0, 1e9
        rooms = np.where(normal * np.sign(gap) > 0, points, 1 - points)
        for _ in range(200):
            middle = (shortest + longest) / 2
            moves = np.minimum(middle * np.abs(normal), rooms)
            shortest, longest = (middle, longest) if np.abs(normal) @ moves < abs(gap) else (shortest, middle)
        return float(np.linalg.norm(np.minimum(longest * np.abs(normal), rooms)))
    count, eye = len(points), np.eye(len(points))
    bound = np.ones((count, 1)) if norm == "Linf" else eye  # |d_i| <= one length, or each its own
    sizes = bound.shape[1]
    found = linprog(
        np.r_[np.zeros(count), np.ones(sizes)],
        A_ub=np.block([[eye, -bound], [-eye, -bound]]),
        b_ub=np.zeros(2 * count),
        A_eq=np.r_[normal, np.zeros(sizes)][None],
        b_eq=[-gap],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * sizes],
    )
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), pixels=st.integers(1, 40), closeness=st.floats(0.001, 0.99))
@example(seed=1027, pixels=1, closeness=0.5)
def test_the_least_way(norm: str, seed: int, pixels: int, closeness: float) -> None:
    points, normals, gaps = problem(seed, 3, pixels, closeness)
    ways = PROJECTIONS[norm](points, normals, gaps)  # type: ignore[index]
    torch.testing.assert_close((normals * ways).sum(1), -gaps, rtol=1e-4, atol=1e-6)
    assert (points + ways).min() >= -1e-6 and (points + ways).max() <= 1 + 1e-6
    lengths = torch.linalg.vector_norm(ways, ord=ORDERS[norm], dim=1)
    for row in range(3):
        arrays = points[row].double().numpy(), normals[row].double().numpy()
        assert float(lengths[row]) == pytest.approx(least(norm, *arrays, float(gaps[row])), rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("pixels", [64, 784, 3072])
@pytest.mark.parametrize("closeness", [0.01, 0.3, 0.9])
def test_the_sorted_solution(norm: str, pixels: int, closeness: float) -> None:
    """The code released with the paper sorts all coordinates."""
    points, normals, gaps = problem(pixels, 8, pixels, closeness)
    expected = SORTED[norm](points, normals, (normals * points).sum(1) - gaps)
    ways = PROJECTIONS[norm](points, normals, gaps)  # type: ignore[index]
    size = torch.linalg.vector_norm(ways, ord=ORDERS[norm], dim=1)
    torch.testing.assert_close(size, torch.linalg.vector_norm(expected, ord=ORDERS[norm], dim=1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close((normals * ways).sum(1), -gaps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_out_of_reach(norm: str) -> None:
    """All rooms are used, and no more; a normal of zeros moves nothing; what is not a number ends too."""
    points, normals, gaps = problem(0, 4, 50, 1.0)
    normals[:, :5] = 0
    ways = PROJECTIONS[norm](points, normals, 3 * gaps)  # type: ignore[index]
    sides = gaps.sign().unsqueeze(1) * normals.sign()
    torch.testing.assert_close(points + ways, torch.where(sides == 0, points, (sides < 0).float()))
    assert not PROJECTIONS[norm](points, torch.zeros_like(normals), gaps).any()  # type: ignore[index]
    assert not PROJECTIONS[norm](points, normals, torch.zeros(4)).any()  # type: ignore[index]
    PROJECTIONS[norm](points, normals * torch.nan, gaps)  # type: ignore[index]
