"""Learning coefficients against exact values: of bowls, of monomials, of regressions without full rank."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from jobs.generalization.basins.learning_coefficient import (
    Chains,
    LangevinParams,
    inverse_temperature,
    learning_coefficient,
    sample,
)
from jobs.generalization.basins.stacked_loss import StackedLoss

COUNT = 1000
STRENGTH = COUNT * inverse_temperature(COUNT)


def gradients_of(loss):
    """The gradients of a loss that is a function of the weights alone."""

    def gradients(points: Tensor, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        moving = points.detach().requires_grad_()
        losses = loss(moving)
        return losses.detach(), torch.autograd.grad(losses.sum(), moving)[0]

    return gradients


def estimated(loss, size: int, params: LangevinParams, seed: int = 0):
    moves = torch.ones(size, dtype=torch.bool)
    chains = sample(gradients_of(loss), torch.zeros(size).double(), moves, COUNT, params, seed)
    return learning_coefficient(chains, COUNT, params.burn_in)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_regular_minimum_has_half_its_dimension(preconditioned):
    """With the pull of the localisation taken into account, which is exact for a bowl."""
    curvature = torch.linspace(1, 5, 40, dtype=torch.float64)
    params = LangevinParams(
        chains=16, burn_in=600, draws=1500, step=2e-4, localisation=1.0, preconditioned=preconditioned
    )
    result = estimated(lambda w: 0.5 * (curvature * w.square()).sum(1), 40, params)
    exact = 0.5 * float((STRENGTH * curvature / (STRENGTH * curvature + 1)).sum())
    assert exact == pytest.approx(20, rel=0.01)
    assert result.estimate.value == pytest.approx(exact, rel=0.06)
    assert result.estimate.low < result.estimate.value < result.estimate.high
    assert result.settled and not result.diverged and not result.negative


def test_directions_without_curvature_do_not_count():
    """Linear regression on inputs of rank 3 of 8: half the rank."""
    stream, count = torch.Generator().manual_seed(0), 200
    inputs = torch.randn(count, 3, generator=stream) @ torch.linalg.qr(torch.randn(8, 3, generator=stream))[0].T
    network = nn.Linear(8, 1, bias=False)
    targets = (inputs @ network.weight.detach().T)[:, 0]
    loss = StackedLoss(network, inputs, targets, lambda answers, y: 0.5 * (answers[:, 0] - y).square())
    params = LangevinParams(chains=30, burn_in=150, draws=450, step=2e-3, localisation=0.1)
    chains = sample(loss.gradients, loss.centre, torch.ones(8, dtype=torch.bool), count, params, 0)
    result = learning_coefficient(chains, count, params.burn_in)
    assert result.estimate.value == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("power", [4, 6])
def test_a_power_of_one_weight_has_the_exact_coefficient(power):
    """1 / power, at any strength (Watanabe 2009, chapter 3)."""
    params = LangevinParams(chains=400, burn_in=1000, draws=1000, step=1e-3, localisation=0.0)
    result = estimated(lambda w: w[:, 0] ** power, 1, params)
    assert result.estimate.value == pytest.approx(1 / power, abs=0.02)


def of_two_weights(power: int, strength: float) -> float:
    """strength E[w1^2 w2^power] of the posterior with a pull of 1: w1 is Gaussian given w2, which is summed over."""

    def moment(order: int) -> float:
        def density(log_w: float) -> float:
            w = math.exp(log_w)
            precision = 2 * strength * w**power + 1
            return w * math.exp(-(w**2) / 2) * precision**-0.5 * (w**power / precision) ** order

        return quad(density, -40, 3, limit=500, points=[-math.log(strength) / power, 0])[0]

    return strength * moment(1) / moment(0)


@pytest.mark.parametrize("power", [2, 4])
def test_valleys_that_cross_have_the_exact_coefficient(power):
    """w1^2 w2^4 has 1/4. w1^2 w2^2 has 1/2 with multiplicity 2, seen as 1/2 - 1 / (ln strength + constant)."""
    if power == 4:
        assert of_two_weights(4, 1e12) == pytest.approx(1 / 4, abs=1e-3)
    else:
        inverse = [1 / (0.5 - of_two_weights(2, strength)) for strength in (1e6, 1e12)]
        assert inverse[1] - inverse[0] == pytest.approx(math.log(1e6), rel=0.02)
    params = LangevinParams(chains=400, burn_in=1000, draws=1000, step=1e-3, localisation=1.0)
    result = estimated(lambda w: w[:, 0] ** 2 * w[:, 1] ** power, 2, params)
    assert result.estimate.value == pytest.approx(of_two_weights(power, STRENGTH), rel=0.06)


def test_minibatches_are_compared_with_the_minimum_on_the_same_images():
    """Noise of the images that the chains and the minimum share cancels."""
    offsets = torch.linspace(-50, 50, COUNT, dtype=torch.float64)

    def gradients(points: Tensor, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        assert chosen is not None and len(chosen) == 100 == len(chosen.unique())
        return points.square().sum(1) / 2 + offsets[chosen].mean(), points

    params = LangevinParams(chains=8, burn_in=400, draws=800, step=2e-3, localisation=0.0, batch=100)
    chains = sample(gradients, torch.zeros(10).double(), torch.ones(10, dtype=torch.bool), COUNT, params, 0)
    result = learning_coefficient(chains, COUNT, params.burn_in)
    assert result.estimate.value == pytest.approx(5, rel=0.15)


def test_what_does_not_move_stays():
    moves = torch.tensor([True, False])
    params = LangevinParams(chains=3, burn_in=1, draws=20, localisation=0.0)
    starts: list[Tensor] = []

    def gradients(points: Tensor, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        starts.append(points.clone())
        return points.square().sum(1), 2 * points

    sample(gradients, torch.tensor([0.0, 7.0]), moves, COUNT, params, 0)
    assert (starts[-1][:, 1] == 7).all() and (starts[-1][:-1, 0] != 0).all() and starts[-1][-1, 0] == 0


def test_chains_that_diverge_are_counted_and_left_out():
    def loss(w: Tensor) -> Tensor:
        return torch.where(w[:, 0] > 0.15, torch.inf, 0.5) * w.square().sum(1)

    params = LangevinParams(chains=60, burn_in=50, draws=100, step=1e-3, localisation=1.0)
    result = estimated(loss, 1, params)
    assert 0 < result.diverged < 60 and math.isfinite(result.estimate.value)
    assert np.isnan(result.chains).sum() == result.diverged


def test_a_point_above_its_surroundings_has_a_negative_estimate_and_it_is_said():
    params = LangevinParams(chains=4, burn_in=10, draws=50, step=1e-3, localisation=500.0)
    result = estimated(lambda w: -w.square().sum(1), 5, params)
    assert result.negative == 4 and result.estimate.value < 0


def test_a_chain_that_still_moves_away_has_not_settled():
    climbing = np.arange(1, 201)[:, None] * np.array([1.0, 1.1, 0.9])
    assert not learning_coefficient(Chains(climbing, np.zeros(3)), COUNT, 0).settled
    steady = np.random.default_rng(0).normal(1, 0.1, size=(200, 8))
    assert learning_coefficient(Chains(steady, np.zeros(8)), COUNT, 0).settled


def test_a_seed_is_a_result():
    params = LangevinParams(chains=3, burn_in=5, draws=10)
    one, again, other = (estimated(lambda w: w.square().sum(1), 4, params, seed) for seed in (1, 1, 2))
    assert one.estimate == again.estimate != other.estimate
