"""Projections: properties on random batches, and the nearest point found by other means."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from jobs.common.attacks.projections import largest, onto_l1, project_l0, project_l1, project_l2, project_linf

PROJECTIONS = {"Linf": project_linf, "L2": project_l2, "L1": project_l1}
ORDERS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """Points, centres (many of their pixels 0 or 1) and epsilon."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    centres = torch.rand(shape, generator=generator)
    if draw(st.booleans()):
        centres = centres.round()
    points = centres + draw(st.sampled_from([0.0, 0.01, 1.0, 30.0])) * torch.randn(shape, generator=generator)
    if draw(st.booleans()):
        points = points.round()  # ties
    return points, centres, draw(st.floats(1e-3, 5))


@pytest.mark.parametrize("norm", PROJECTIONS)
@given(batch=batches())
@settings(max_examples=60, deadline=None)
def test_projected_points_are_in_ball_and_box_and_stay(norm: str, batch: tuple[Tensor, Tensor, float]) -> None:
    points, centres, epsilon = batch
    projected = PROJECTIONS[norm](points, centres, epsilon)
    assert projected.shape == points.shape
    assert projected.amin() >= 0 and projected.amax() <= 1
    norms = torch.linalg.vector_norm((projected - centres).flatten(1), ord=ORDERS[norm], dim=1)
    assert (norms <= epsilon + 1e-5 * max(1, epsilon)).all()
    torch.testing.assert_close(PROJECTIONS[norm](projected, centres, epsilon), projected, rtol=0, atol=2e-6)


@given(batch=batches())
@settings(max_examples=60, deadline=None)
def test_l1_is_the_nearest_point(batch: tuple[Tensor, Tensor, float]) -> None:
    """Against a bisection on the multiplier, in float64."""
    points, centres, epsilon = batch
    batch_of_rows = (points, centres, project_l1(points, centres, epsilon))
    for point, centre, found in zip(*(each.double().flatten(1).numpy() for each in batch_of_rows), strict=True):
        difference = point - centre
        room = np.where(difference > 0, 1 - centre, centre)
        low, high = 0.0, float(np.abs(difference).max())
        moves = np.clip(np.abs(difference), 0, room)
        if moves.sum() > epsilon:
            for _ in range(80):
                middle = (low + high) / 2
                moves = np.clip(np.abs(difference) - middle, 0, room)
                low, high = (middle, high) if moves.sum() > epsilon else (low, middle)
        rounding = 4 * torch.finfo(torch.float32).eps * float(np.abs(difference).max())  # of far points
        np.testing.assert_allclose(found, centre + np.sign(difference) * moves, atol=1e-5 + rounding)


def test_l1_equals_a_quadratic_program() -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        centre = np.clip(generator.uniform(-0.3, 1.3, 6), 0, 1)
        point = centre + generator.normal(size=6)
        # d = up - down, both in their rooms, so that the L1 norm is linear
        solution = minimize(
            lambda v, p=point - centre: ((v[:6] - v[6:] - p) ** 2).sum(),
            np.zeros(12),
            bounds=[*zip(np.zeros(6), 1 - centre, strict=True), *zip(np.zeros(6), centre, strict=True)],
            constraints={"type": "ineq", "fun": lambda v: 0.8 - v.sum(), "jac": lambda v: -np.ones(12)},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert solution.success
        expected = centre + solution.x[:6] - solution.x[6:]
        found = project_l1(torch.tensor(point)[None], torch.tensor(centre)[None], 0.8)[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_l1_of_many_pixels_spends_epsilon() -> None:
    """Sums of 150,528 float32 moves: the norm meets epsilon to 1e-4 of it."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(2, 3, 224, 224, generator=generator)
    points = centres + torch.randn(2, 3, 224, 224, generator=generator)
    norms = (project_l1(points, centres, 12.0) - centres).abs().double().sum((1, 2, 3))
    torch.testing.assert_close(norms, torch.full((2,), 12.0, dtype=torch.float64), rtol=1e-4, atol=0)


@given(st.integers(0, 2**31), st.integers(1, 6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_l0_is_the_nearest_point(seed: int, count: int, ties: bool) -> None:
    """Of all points in the box that differ in so many coordinates, by trying which."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(3, 1, 2, 3, generator=generator)
    points = centres + torch.randn(3, 1, 2, 3, generator=generator)
    if ties:
        points = points.round()
    projected = project_l0(points, centres, count)
    assert ((projected != centres).flatten(1).sum(1) <= count).all()
    assert projected.amin() >= 0 and projected.amax() <= 1
    inside = points.clamp(0, 1).flatten(1)
    nearest = torch.full((3,), torch.inf)
    for chosen in itertools.combinations(range(6), count):
        candidates = centres.flatten(1).clone()
        candidates[:, chosen] = inside[:, chosen]
        nearest = torch.minimum(nearest, (candidates - points.flatten(1)).norm(dim=1))
    torch.testing.assert_close((projected - points).flatten(1).norm(dim=1), nearest)
    assert torch.equal(project_l0(points, centres, torch.tensor([count, count, 0]))[2], centres[2])


@given(st.integers(0, 2**31), st.sampled_from([0.01, 1.0, 100.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_onto_l1_shrinks_all_coordinates_alike(seed: int, scale: float, ties: bool) -> None:
    """Against the threshold that sorting gives, in float64."""
    generator = torch.Generator().manual_seed(seed)
    differences = scale * torch.randn(5, 40, generator=generator)
    if ties:
        differences = differences.round()
    radii = torch.rand(5, generator=generator) * 3
    shrunk = onto_l1(differences, radii)
    for row in range(5):
        lengths, radius = differences[row].double().abs().numpy(), float(radii[row])
        threshold = 0.0
        if lengths.sum() > radius:
            ordered = -np.sort(-lengths)
            candidates = (np.cumsum(ordered) - radius) / np.arange(1, 41)
            threshold = candidates[np.nonzero(ordered > candidates)[0][-1]]
        expected = np.sign(differences[row].numpy()) * np.maximum(lengths - threshold, 0)
        np.testing.assert_allclose(shrunk[row], expected, atol=1e-5 * scale, rtol=0)


def test_largest() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0], [1.0, 5.0, 0.0], [1.0, 2.0, 3.0]])
    assert largest(values, torch.tensor([2, 1, 0])).tolist() == [
        [True, False, True],
        [False, True, False],
        [False, False, False],
    ]
    assert largest(values, torch.tensor([9, 9, 9])).all()
