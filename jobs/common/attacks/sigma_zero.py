"""Sigma-zero: the fewest changed coordinates, by descent on a smooth L0 norm.

Source: Cinà et al. 2025 ("sigma-zero: Gradient-based optimization of l0-norm adversarial examples"), algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Search
from jobs.common.attacks.carlini_wagner import adam
from jobs.common.attacks.descent import Descent, falling
from jobs.common.attacks.goals import Goal
from jobs.common.attacks.losses import margin
from jobs.common.attacks.nearest import HALVINGS, Nearest, confirm, prune, prunings
from jobs.common.attacks.prepared import searching_prepared
from jobs.common.attacks.projections import TINY, broadcast

LAST = 0.1
"""of the first learning rate, what it falls to"""
LEAVING, PATIENCE = 0.7, 0.1
"""share of the steps after which a sample leaves that has not changed fewer in a share of them"""


@dataclass
class Sparse(Descent):
    """Where each sample is, with the moments of Adam and the threshold below which changes are dropped."""

    velocity: Tensor
    scale: Tensor
    thresholds: Tensor
    """(k,)"""


class SigmaZero(Attack):
    """Adam on the margin, while it is below 0, and on the mean of d^2 / (d^2 + sigma) over the coordinates.

    After each step changes below a threshold are dropped; it rises where the goal is reached and falls where it is not.
    Ours: in the last third of the steps a sample leaves that no longer changes fewer; at the end coordinates are left
    out that the goal can do without (`nearest.prune`).
    """

    norms: ClassVar[tuple[Norm, ...]] = ("L0",)

    kind: Literal["sigma_zero"] = Field("sigma_zero", description="sigma-zero: looks for the fewest changes")
    steps: int = Field(1000, ge=1, le=100_000, description="steps, at most: a sample leaves that no longer improves")
    step_size: float = Field(1.0, gt=0, le=10, description="first learning rate of Adam")
    sigma: float = Field(1e-3, gt=0, le=1, description="smoothness of the L0 norm: the smaller, the nearer to it")
    threshold: float = Field(0.3, ge=0, le=1, description="change below which a coordinate is first dropped")
    threshold_step: float = Field(0.01, ge=0, le=1, description="change of the threshold, by the learning rate")

    @property
    def finds_least(self) -> bool:
        return True

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.steps + prunings(self.steps) * HALVINGS + 1, backward=self.steps)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        with searching_prepared(search):
            nearest = self._descend(search, self.steps - prunings(self.steps))
            for _ in range(prunings(self.steps)):
                prune(search, nearest)
        confirm(search, nearest)
        nearest.record(search)

    def _descend(self, search: Search, steps: int) -> Nearest:
        nearest = Nearest.none(search.images)
        start = Descent.begin(search)
        velocity, scale = torch.zeros_like(start.images), torch.zeros_like(start.images)
        state = Sparse(**vars(start), velocity=velocity, scale=scale, thresholds=start.stalls + self.threshold)
        for number in range(steps):
            if not len(state.rows):
                break
            logits, _, gradient = search.gradient(state.rows, state.points, _below, state.goal)
            differences = state.points - state.images
            reached = state.goal.reached(logits)
            nearest.improve(state.rows, state.points, search.ball.norms(differences), reached)
            least = nearest.norms[state.rows]
            state.note(least)
            rate = self.step_size * falling(number, steps, LAST)
            self._step(state, differences, gradient, reached, number, rate)
            if number >= LEAVING * steps:
                state.leave(max(5, int(PATIENCE * steps)), least)
        return nearest

    def _step(
        self, state: Sparse, differences: Tensor, gradient: Tensor, reached: Tensor, number: int, rate: float
    ) -> None:
        squares = differences.square() + self.sigma
        descent = differences * (2 * self.sigma / differences[0].numel()) / squares.square_() - gradient
        descent /= broadcast(descent.flatten(1).abs().amax(1).clamp(min=TINY), descent)
        moved, state.velocity, state.scale = adam(state.points, descent, state.velocity, state.scale, number + 1, rate)
        moved = moved.clamp_(0, 1)
        change = self.threshold_step * rate
        state.thresholds = (state.thresholds + torch.where(reached, change, -change)).clamp_(0, 1)
        stays = (moved - state.images).abs() < broadcast(state.thresholds, moved)
        state.points = torch.where(stays, state.images, moved)


def _below(logits: Tensor, goal: Goal) -> Tensor:
    """How far the margin is below 0: (batch,)."""
    return margin(logits, goal).clamp(max=0)
