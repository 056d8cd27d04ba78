"""The ball: what it refuses, its norms, its random points and its directions of ascent."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from jobs.common.attacks.ball import Ball, ascent_direction, random_in_ball
from service.errors import InputError
from tests.jobs.common.attacks.networks import in_ball

DUAL = {"Linf": 1.0, "L2": 2.0, "L1": math.inf}


@pytest.mark.parametrize("epsilon", [0.0, -0.1, math.nan, math.inf])
def test_epsilon_must_be_positive_and_finite(epsilon: float) -> None:
    with pytest.raises(InputError, match="epsilon must be (above 0|finite); it is"):
        Ball("L2", epsilon)


def test_epsilon_of_255_shades_is_refused() -> None:
    with pytest.raises(InputError, match=r"epsilon must be at most 1, .*; it is 8 \(.*8 of 255 is 0.0314\)"):
        Ball("Linf", 8)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(InputError, match="norm must be one of Linf, L2, L1, L0; it is 'L3'"):
        Ball("L3", 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("epsilon", [0.5, 2.5])
def test_parts_of_coordinates_are_refused(epsilon: float) -> None:
    with pytest.raises(InputError, match=f"epsilon must be a whole number of coordinates in L0; it is {epsilon}"):
        Ball("L0", epsilon)


def test_l0_counts_channels_of_pixels() -> None:
    images, points = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    points[0, :, 1, 1] = torch.tensor([0.1, 0.0, 1e-30])
    ball = Ball("L0", 2)
    assert ball.norms(points - images).tolist() == ball.distances(points, images).tolist() == [2, 0]
    assert ball.holds(points, images).all() and not Ball("L0", 1).holds(points, images)[0]


def test_norms_and_tolerance() -> None:
    differences = torch.tensor([[[[0.3, -0.4]]], [[[0.0, 0.0]]]])
    for norm, expected in (("Linf", 0.4), ("L2", 0.5), ("L1", 0.7)):
        ball = Ball(norm, expected)  # type: ignore[arg-type]
        np.testing.assert_allclose(ball.norms(differences), [expected, 0], rtol=1e-6)
        images = torch.zeros_like(differences)
        assert ball.holds(differences, images).all() and ball.holds(differences * (1 + 2e-7), images).all()
        assert not ball.holds(differences * (1 + 2e-6), images)[0]


def test_lengths_are_judged_in_float64() -> None:
    """In float32 a sum of many small changes is off by more than what is allowed."""
    images = torch.zeros(1, 3, 32, 32)
    points = torch.full_like(images, 0.1)
    exact = float(points.double().sum())
    ball = Ball("L1", exact)
    assert ball.distances(points, images).item() == pytest.approx(exact, rel=1e-12)
    assert ball.holds(points, images).all() and not ball.holds(points * (1 + 1e-6), images).any()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_random_points_are_uniform_in_the_ball(norm: str) -> None:
    """The share of the ball's volume that is nearer than a uniform point is uniform in [0, 1]: (r / epsilon)^n."""
    ball = Ball(norm, 0.4)  # type: ignore[arg-type]
    images = torch.full((2000, 1, 2, 3), 0.5)
    differences = random_in_ball(images, ball, torch.Generator().manual_seed(0)) - images
    assert kstest((ball.norms(differences) / 0.4).double() ** 6, "uniform").pvalue > 0.01
    assert (differences.mean(0).abs() < 0.02).all()  # no side preferred


def test_random_points_in_l0_change_as_many_coordinates_as_epsilon_says() -> None:
    images = torch.full((3000, 1, 2, 3), 2.0)  # a value that no coordinate can be given
    changed = random_in_ball(images, Ball("L0", 2), torch.Generator().manual_seed(0)) != images
    assert (changed.flatten(1).sum(1) == 2).all()
    assert (changed.float().mean(0) - 2 / 6).abs().max() < 0.04, "each as often"
    values = random_in_ball(images, Ball("L0", 6), torch.Generator().manual_seed(0))
    assert kstest(values.flatten(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_random_points_are_in_the_box(norm: str) -> None:
    images = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    ball = Ball(norm, 0.9)  # type: ignore[arg-type]
    points = random_in_ball(images, ball, torch.Generator().manual_seed(1))
    assert points.amin() >= 0 and points.amax() <= 1 and in_ball(points, images, ball)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_steepest_ascent_gains_the_dual_norm(norm: str) -> None:
    """No step of length 1 gains more than the dual norm of the gradient; these gain it (L1: one coordinate moves)."""
    gradient = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    direction = ascent_direction(gradient, norm, share=1e-9)  # type: ignore[arg-type]
    assert Ball(norm, 1.0).holds(direction, torch.zeros_like(direction)).all()  # type: ignore[arg-type]
    gain = (gradient * direction).flatten(1).sum(1)
    torch.testing.assert_close(gain, torch.linalg.vector_norm(gradient.flatten(1), ord=DUAL[norm], dim=1))


def test_an_l1_step_moves_a_share_of_the_coordinates() -> None:
    gradient = torch.arange(1.0, 201.0).view(1, 2, 10, 10) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    direction = ascent_direction(gradient, "L1", share=0.02).flatten()
    assert direction[-4:].tolist() == [-0.25] * 4 and direction.abs().sum() == 1


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_no_gradient_is_no_step(norm: str) -> None:
    assert not ascent_direction(torch.zeros(2, 1, 3, 3), norm).any()  # type: ignore[arg-type]
