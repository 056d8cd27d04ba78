"""The local learning coefficient: how fast the volume around a minimum vanishes as its depth does.

The volume of {L < L(w*) + e} near w* falls as e^lambda (up to powers of the log). lambda is half the number of weights
for a regular minimum and less for a singular one. It is estimated from draws of a tempered posterior around w*:
lambda = n b (E[L_n(w)] - L_n(w*)), with b = 1 / ln n, by Langevin dynamics.

Sources: Lau et al. 2023, "The Local Learning Coefficient: A Singularity-Aware Complexity Measure", section 4 and
algorithm 1; Watanabe 2013, "A Widely Applicable Bayesian Information Criterion"; for the preconditioned dynamics Li et
al. 2016, "Preconditioned Stochastic Gradient Langevin Dynamics for Deep Neural Networks".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from pydantic import Field
from torch import Tensor

from jobs.common.params import StudyParams
from jobs.generalization.basins.volume import CONFIDENCE, Interval

Gradients = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""points (k, size) and chosen inputs, int64 (batch,), None: all -> losses float64 (k,), gradients (k, size)"""

MEMORY = 0.99  # of the running mean of squared gradients
SMALLEST = 1e-2  # of the root of that mean, relative to its own mean over weights
UNSETTLED = 3.0  # standard errors between the halves of the draws from which they do not agree


class LangevinParams(StudyParams):
    """How the posterior around the weights w* of a network is sampled."""

    chains: int = Field(8, ge=2, le=1000, description="independent chains, computed together")
    burn_in: int = Field(300, ge=1, le=1_000_000, description="steps of each chain before the draws")
    draws: int = Field(300, ge=2, le=1_000_000, description="steps of each chain that the loss is averaged over")
    step: float = Field(1e-4, gt=0, le=1, description="step size e of the dynamics")
    localisation: float = Field(100.0, ge=0, description="gamma, the strength of the pull back to w*")
    batch: int | None = Field(None, ge=1, description="images in a step; none: all of them")
    preconditioned: bool = Field(
        False,
        description="longer steps where gradients are small, as of RMSprop; settled in the burn-in and then held, so "
        "that the posterior is the same",
    )


@dataclass(frozen=True)
class Chains:
    """What the chains went through."""

    excess: np.ndarray
    """float64 (burn_in + draws, chains): L(w) - L(w*) at each step, both over the inputs of the step; NaN from where a
    chain diverged"""
    distance: np.ndarray
    """float64 (chains,): ||w - w*|| at the end"""


@dataclass(frozen=True)
class LearningCoefficient:
    """An estimate from several chains."""

    estimate: Interval
    """the mean over the chains that did not diverge, with a t interval; NaN if fewer than two are left"""
    chains: np.ndarray
    """float64 (chains,): each one's estimate; NaN where it diverged"""
    diverged: int
    """chains whose loss stopped being finite"""
    negative: int
    """chains whose mean loss is below that of w*: w* is not a minimum, or the chains left it for a lower one"""
    settled: bool
    """whether the first half of the draws agrees with the second, over all chains"""

    def doubts(self) -> list[str]:
        """Sentences about what is wrong with it."""
        count, sentences = len(self.chains), []
        if self.diverged:
            sentences.append(f"{self.diverged} of {count} chains diverged and are left out: the step is too large")
        if self.negative:
            sentences.append(
                f"{self.negative} of {count} chains have a negative learning coefficient: lower losses are nearby, so "
                "that the network is at no minimum of the loss"
            )
        if not self.settled:
            sentences.append(
                "the chains have not settled, or too few are left to tell: the learning coefficient is not that of the "
                "posterior; give them more steps of burn_in, or a stronger localisation"
            )
        return sentences


def inverse_temperature(count: int) -> float:
    """b = 1 / ln n of Watanabe 2013, n inputs; n must be at least 2."""
    return 1 / math.log(count)


def sample(
    gradients: Gradients, centre: Tensor, moves: Tensor, count: int, params: LangevinParams, seed: int
) -> Chains:
    """Run the chains from w*, all of them together.

    w <- w - (e/2) A (n b grad L + gamma (w - w*)) + N(0, e A), A = 1 or the preconditioner.
    centre: w* (size,). moves: bool (size,), what is sampled; the rest stays. count: n, inputs in the set.
    """
    device, chains = centre.device, params.chains
    strength = count * inverse_temperature(count)
    points = centre.expand(chains + 1, -1).clone()  # the last row stays at w*
    scale, moving = moves.to(centre.dtype), moves.nonzero().squeeze(1)
    squares = torch.zeros_like(centre)
    excess, alive = [], torch.ones(chains, dtype=torch.bool, device=device)
    noise, order = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    for step in range(params.burn_in + params.draws):
        chosen = None
        if params.batch is not None and params.batch < count:
            chosen = torch.randperm(count, generator=order)[: params.batch].to(device)
        losses, slopes = gradients(points, chosen)
        excess.append(losses[:-1] - losses[-1])
        alive &= torch.isfinite(excess[-1])
        slopes = torch.where(alive[:, None], slopes[:-1], 0.0)
        if params.preconditioned and step < params.burn_in:
            squares = MEMORY * squares + (1 - MEMORY) * slopes.square().mean(0)
            scale = _preconditioner(squares / (1 - MEMORY ** (step + 1)), moves, moving)
        drift = strength * slopes + params.localisation * (points[:-1] - centre)
        kicks = torch.randn(chains, len(centre), generator=noise).to(centre)
        move = -0.5 * params.step * scale * drift + (params.step * scale).sqrt() * kicks
        points[:-1] += torch.where(alive[:, None], move, 0.0)
    distance = (points[:-1] - centre).norm(dim=1)
    return Chains(_ended(torch.stack(excess).cpu().numpy()), distance.double().cpu().numpy())


def learning_coefficient(chains: Chains, count: int, burn_in: int) -> LearningCoefficient:
    """The estimate from draws after the burn-in. count: n, inputs in the set."""
    draws = count * inverse_temperature(count) * chains.excess[burn_in:]  # (draws, chains)
    each = draws.mean(0)
    kept = each[np.isfinite(each)]
    return LearningCoefficient(
        estimate=_mean(kept),
        chains=each,
        diverged=len(each) - len(kept),
        negative=int((kept < 0).sum()),
        settled=_agree(draws[:, np.isfinite(each)]),
    )


def _preconditioner(squares: Tensor, moves: Tensor, moving: Tensor) -> Tensor:
    """1 over the root mean square gradient of each weight, scaled to a geometric mean of 1 over those that move.

    moving: int64, their places. Finding them would wait for a GPU each time.
    """
    roots = squares.sqrt()
    typical = roots[moving].mean()
    inverse = 1 / (roots + SMALLEST * typical + torch.finfo(roots.dtype).tiny)
    return torch.where(moves, inverse / inverse[moving].log().mean().exp(), 0.0)


def _ended(excess: np.ndarray) -> np.ndarray:
    """A chain that stopped being finite has ended there, whatever it is said to be later."""
    ended = np.logical_or.accumulate(~np.isfinite(excess), axis=0)
    return np.where(ended, np.nan, excess)


def _mean(values: np.ndarray) -> Interval:
    """The mean of independent values with its t interval."""
    if len(values) < 2:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(values.mean())
    reach = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Interval(mean, float(mean - reach), float(mean + reach))


def _agree(draws: np.ndarray) -> bool:
    """Whether the means of both halves differ by no more than chance. draws: (draws, chains)."""
    half = len(draws) // 2
    differences = draws[half:].mean(0) - draws[:half].mean(0)
    if len(differences) < 2:
        return False
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return bool(abs(differences.mean()) <= UNSETTLED * error)
