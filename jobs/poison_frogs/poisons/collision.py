"""Feature collision: an image that looks like a base and has the features of a target, by forward-backward splitting.

    forward    x' = x - λ ∇L(x),    L(x) = ‖f(x) - f(t)‖², or without the square
    backward   x = (x' + λ β b) / (1 + λ β)

f: features, t: target, b: base. The two together go down the objective L(x) + β/2 ‖x - b‖², so steps are judged by
it: the paper's equation 1 has β, but its algorithm 1 has half of that. Only the window of the released code is over the
objective of that code, ‖f(x) - f(t)‖ + β ‖x - b‖.

Many (target, base) pairs of one network are made in one batch. They do not touch each other: each has its own step size
λ, accepts or rejects its own steps and stops for its own reason, and those that are done leave the batch. The value at
a new point and the gradient of the step after it come from the same pass.

Pixels are in [0, 1] here. λ and β belong to the pixels that `pixel_range` names, as in the source of a profile.

Source: Shafahi et al. 2018, "Poison Frogs!", equations 1 to 3, algorithm 1; the released code for the profiles
code and code_end_to_end.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from jobs.poison_frogs.poisons.recipes import FeatureCollision

WINDOW = 40  # objectives that the released code averages over

Extract = Callable[[Tensor], Tensor]  # images (n, channels, height, width) -> features (n, D)


@dataclass(frozen=True)
class Poisons:
    """What came out, one row a pair."""

    images: Tensor
    """(n, channels, height, width), as victims get them: quantised"""
    features: Tensor
    """(n, D), of these"""
    collision: Tensor
    """(n,) distance of these features to the target's"""
    unquantised: Tensor
    """(n,) the same before the images were quantised"""
    iterations: Tensor
    """int64 (n,)"""
    stopped: list[str]
    """why each ended: iterations, collided, objective, no change, not finite"""


def backward_step(moved: Tensor, base: Tensor, pull: Tensor) -> Tensor:
    """(x' + λβ b) / (1 + λβ), the proximal map of β/2 ‖x - b‖². pull: λβ, one for each image."""
    return (moved + pull * base) / (1 + pull)


def craft(
    extract: Extract,
    bases: Tensor,
    targets: Tensor,
    target_features: Tensor,
    recipe: FeatureCollision,
    neighbours: Tensor | None = None,
) -> Poisons:
    """Collide each base with its target.

    extract: the features, differentiable; of each image by itself. bases, targets: (n, channels, height, width) in
    [0, 1]. target_features: (n, D), with noise if there is to be some. neighbours: (n,), the distance of each target to
    the nearest training image, for stop_ratio.
    """
    problem = _Problem(extract, recipe, recipe.weight(target_features.shape[1], bases[0].numel()))
    state = problem.begin(bases, targets, target_features, neighbours)
    done = torch.empty_like(state.x)
    count, stopped = torch.zeros(len(bases), dtype=torch.int64), ["iterations"] * len(bases)

    def leave(state: _State, reasons: dict[str, Tensor], iteration: int) -> _State:
        """Put those that have a reason to stop aside. Of several reasons the first is told."""
        number = torch.zeros_like(state.row)  # of the reason, from 1 on; 0: none
        for place, reached in reversed(list(enumerate(reasons.values(), 1))):
            number = torch.where(reached, place, number)
        rows, numbers = torch.stack([state.row, number]).tolist()  # waits for a GPU, once
        for row, reason in zip(rows, numbers, strict=True):
            if reason:
                stopped[row], count[row] = list(reasons)[reason - 1], iteration
        if not any(numbers):
            return state
        over = number > 0
        done[state.row[over]] = state.x[over]
        return state.select(~over)

    for iteration in range(recipe.iterations):
        state = leave(state, problem.reached(state), iteration)
        if not len(state.x):
            break
        proposal = problem.propose(state)
        change = _norm(proposal.x - state.x) / _norm(proposal.x).clamp(min=1e-30)
        still = change < recipe.stop_change
        if bool(still.any()):
            proposal = proposal.select(~still)
            state = leave(state, {"no change": still}, iteration)
            if not len(state.x):
                break
        state = problem.judge(state, problem.measure(proposal), iteration)
    left = torch.ones(len(state.x), dtype=torch.bool, device=state.x.device)
    ends = problem.reached(state) if recipe.iterations and len(left) else {}
    leave(state, {**ends, "iterations": left}, recipe.iterations)

    images = quantised(done, recipe.quantise)
    with torch.no_grad():
        before = _norm(extract(done) - target_features) if len(done) else target_features.new_zeros(0)
        features = extract(images)
    return Poisons(images, features, _norm(features - target_features), before, count, stopped)


def quantised(images: Tensor, how: Literal["round", "truncate", "none"]) -> Tensor:
    """Images in [0, 1] with 256 shades: to the nearest (half to even), or downwards as the released code casts."""
    if how == "none":
        return images
    shades = 255 * images.clamp(0, 1)
    return (shades.round() if how == "round" else shades.floor()) / 255


@dataclass(frozen=True)
class _State:
    """All that belongs to the pairs still in the batch, one row each."""

    row: Tensor
    x: Tensor
    base: Tensor
    """with the watermark: what x is pulled to"""
    low: Tensor
    high: Tensor
    target_features: Tensor
    near: Tensor
    """the collision that is near enough; 0: none is"""
    rate: Tensor
    """λ, (n, 1, 1, 1)"""
    gradient: Tensor
    loss: Tensor
    collision: Tensor
    objective: Tensor
    window: Tensor
    """(n, WINDOW) the last objectives; NaN where there is none yet"""
    first: Tensor
    second: Tensor
    """moments of Adam"""
    taken: Tensor
    """steps of Adam"""

    def select(self, rows: Tensor) -> "_State":
        return _State(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class _Problem:
    extract: Extract
    recipe: FeatureCollision
    beta: float

    def begin(self, bases: Tensor, targets: Tensor, target_features: Tensor, neighbours: Tensor | None) -> _State:
        recipe, count = self.recipe, len(bases)
        marked = recipe.watermark * targets + (1 - recipe.watermark) * bases
        low, high = torch.zeros_like(bases), torch.ones_like(bases)
        if not recipe.clip:
            low, high = low - torch.inf, high + torch.inf
        if recipe.epsilon is not None:
            low, high = torch.maximum(low, bases - recipe.epsilon), torch.minimum(high, bases + recipe.epsilon)
        none = bases.new_zeros(count)
        near = none + (recipe.stop_distance or 0.0)
        if recipe.stop_ratio is not None and neighbours is not None:
            near = torch.maximum(near, recipe.stop_ratio * neighbours)
        empty = bases.new_zeros(count, *[1] * (bases.dim() - 1))
        moments = torch.zeros_like(bases) if recipe.forward == "adam" else empty
        state = _State(
            row=torch.arange(count, device=bases.device),
            x=torch.minimum(torch.maximum(marked, low), high),
            base=marked,
            low=low,
            high=high,
            target_features=target_features,
            near=near,
            rate=empty + recipe.step,
            gradient=torch.zeros_like(bases),
            loss=none,
            collision=none,
            objective=none,
            window=bases.new_full((count, WINDOW), torch.nan),
            first=moments,
            second=moments.clone(),
            taken=empty,
        )
        state = self.measure(state)
        state.window[:, 0] = state.objective
        return state

    def measure(self, state: _State) -> _State:
        """Value and gradient at x in one pass."""
        x = state.x.detach().requires_grad_()
        squared = (self.extract(x) - state.target_features).square().sum(1)
        loss = squared if self.recipe.squared else squared.clamp(min=1e-24).sqrt()
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        loss, collision = loss.detach(), squared.detach().sqrt()
        away = self.recipe.pixel_range * _norm(state.x - state.base)
        if self.recipe.control == "window" and not self.recipe.squared:
            objective = loss + self.beta * away
        else:
            objective = loss + self.beta / 2 * away.square()
        return replace(state, gradient=gradient, loss=loss, collision=collision, objective=objective)

    def reached(self, state: _State) -> dict[str, Tensor]:
        """Who need not go on."""
        objective = self.recipe.stop_objective
        return {
            "not finite": ~torch.isfinite(state.objective) | ~torch.isfinite(state.gradient).flatten(1).all(1),
            "collided": state.collision < state.near,
            "objective": state.objective <= (-1.0 if objective is None else objective),
        }

    def propose(self, state: _State) -> _State:
        """One forward and one backward step from x."""
        if self.recipe.forward == "gradient":
            moved = state.x - state.rate / self.recipe.pixel_range**2 * state.gradient
        else:
            # Kingma & Ba 2015, algorithm 1
            taken = state.taken + 1
            first = 0.9 * state.first + 0.1 * state.gradient
            second = 0.999 * state.second + 0.001 * state.gradient.square()
            unbiased = (second / (1 - 0.999**taken)).sqrt() + 1e-8
            moved = state.x - state.rate * first / (1 - 0.9**taken) / unbiased
            state = replace(state, first=first, second=second, taken=taken)
        x = backward_step(moved, state.base, state.rate * self.beta)
        return replace(state, x=torch.minimum(torch.maximum(x, state.low), state.high))

    def judge(self, before: _State, after: _State, iteration: int) -> _State:
        """Accept or reject each step; where it is rejected, λ is cut and x stays where it was."""
        match self.recipe.control:
            case "objective":
                worse = after.objective > before.objective
            case "loss":
                worse = after.loss >= before.loss
            case "window":
                # the code asks `iteration % M / 2 == 0`, which Python 2 reads as (iteration % M) // 2
                mean = before.window.nanmean(1)
                worse = (after.objective >= mean) & (iteration % WINDOW // 2 == 0)
        worse |= ~torch.isfinite(after.objective) | ~torch.isfinite(after.gradient).flatten(1).all(1)
        window = after.window.clone()
        window[:, (iteration + 1) % WINDOW] = after.objective.nan_to_num(posinf=torch.nan)
        wide = worse.view(-1, *[1] * (after.x.dim() - 1))
        return replace(
            after,
            x=torch.where(wide, before.x, after.x),
            gradient=torch.where(wide, before.gradient, after.gradient),
            rate=torch.where(wide, before.rate * self.recipe.decay, before.rate),
            loss=torch.where(worse, before.loss, after.loss),
            collision=torch.where(worse, before.collision, after.collision),
            objective=torch.where(worse, before.objective, after.objective),
            window=window,
        )


def _norm(values: Tensor) -> Tensor:
    """The 2-norm of each row: (n, …) -> (n,)."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms
