"""What attacks leave of a network's accuracy: per image, per attack and epsilon, and in the worst case over attacks.

An image is robust if it is classified correctly and the attack does not succeed on it. Images of cells that failed were
not attacked; they count as robust, so that accuracies are upper bounds, which those under any attack are anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from jobs.common.attacks import Attack, Ball, Norm
from jobs.common.attacks.checks import square_after_gradients

DISAGREEMENT = 0.02
"""of robust accuracies, above which one of two kinds of attacks is called too weak"""


@dataclass(frozen=True)
class Outcome:
    """What one attack did to all images at one epsilon."""

    name: str
    """of the attack"""
    kind: str
    ball: Ball
    attacked: Tensor
    """bool (images,): those that the attack was tried on; the others are of cells that failed"""
    robust: Tensor
    """bool (images,)"""
    not_finite: Tensor
    """bool (images,): the network gave a NaN or infinite logit at some points tried, none of which counts"""
    distances: Tensor
    """float64 (images,): the least norm known to change the answer; 0 if it is wrong already, inf if none is known"""
    queries: Tensor
    """int64 (images,): forward passes"""
    gradients: Tensor
    """int64 (images,): backward passes"""
    seconds: float
    """of all cells together"""
    warnings: tuple[str, ...] = ()
    """why the attack may flatter the network, one sentence for each slice that it was found in"""
    finds_least: bool = False
    """whether one search for the least norm told the outcome at every epsilon"""

    @property
    def accuracy(self) -> float:
        """The share of images that are robust."""
        return float(self.robust.double().mean())

    def within(self, epsilon: float) -> "Outcome":
        """The outcome at a smaller epsilon, for an attack that looks for the least norm whatever epsilon is."""
        ball = Ball(self.ball.norm, epsilon)
        return replace(self, ball=ball, robust=self.distances > ball.longest)

    def of(self, images: Tensor) -> "Outcome":
        """The outcome of some of the images alone. images: bool (images,)."""
        return replace(
            self,
            attacked=self.attacked[images],
            robust=self.robust[images],
            not_finite=self.not_finite[images],
            distances=self.distances[images],
            queries=self.queries[images],
            gradients=self.gradients[images],
        )


def searches(attacks: Mapping[str, Attack], epsilons: Sequence[float]) -> list[tuple[str, float]]:
    """Name of the attack and epsilon of all that is to be run: a search for the least norm once, at the largest.

    epsilons: ascending.
    """
    return [
        (name, epsilon)
        for epsilon in epsilons
        for name, attack in attacks.items()
        if epsilon == epsilons[-1] or not attack.finds_least
    ]


def outcomes_at(
    attacks: Mapping[str, Attack],
    norm: Norm,
    epsilons: Sequence[float],
    correct: Tensor,
    slices: Sequence[tuple[int, int]],
    results: Mapping[tuple[str, float], Sequence[dict[str, Any] | None]],
) -> dict[float, list["Outcome"]]:
    """What each attack did, at each epsilon, in the order of the attacks.

    epsilons: ascending. correct, slices: as of `gathered`. results: of `searches`, those of the slices in order.
    """

    def outcome(name: str, epsilon: float) -> Outcome:
        searched = epsilon if (name, epsilon) in results else epsilons[-1]
        attack, ball = attacks[name], Ball(norm, searched)
        whole = gathered(name, attack.kind, ball, correct, slices, results[name, searched], attack.finds_least)
        return whole if searched == epsilon else whole.within(epsilon)

    return {epsilon: [outcome(name, epsilon) for name in attacks] for epsilon in epsilons}


def gathered(
    name: str,
    kind: str,
    ball: Ball,
    correct: Tensor,
    slices: Sequence[tuple[int, int]],
    results: Sequence[dict[str, Any] | None],
    finds_least: bool = False,
) -> Outcome:
    """The outcome from the results of the slices, None for a cell that failed.

    correct: bool (images,), which are classified correctly. slices: first image of each and the first after it.
    """
    count = len(correct)
    attacked, not_finite = torch.zeros(2, count, dtype=torch.bool)
    robust, distances = correct.clone(), torch.where(correct, torch.inf, 0.0).double()
    queries, gradients = torch.zeros(2, count, dtype=torch.int64)
    seconds, warnings = 0.0, []
    for (first, end), result in zip(slices, results, strict=True):
        if result is None:
            continue
        here = slice(first, end)
        attacked[here], robust[here], distances[here] = True, ~result["successful"], result["distances"]
        not_finite[here] = result["not_finite"]
        queries[here], gradients[here] = result["queries"], result["gradients"]
        seconds += result["seconds"]
        warnings += result["warnings"]
    return Outcome(
        name,
        kind,
        ball,
        attacked,
        robust,
        not_finite,
        distances,
        queries,
        gradients,
        seconds,
        tuple(warnings),
        finds_least,
    )


def tried_by_all(outcomes: Mapping[float, Sequence[Outcome]]) -> Tensor:
    """Which images every attack was tried on at every epsilon: bool (images,). Attacks are compared on these alone."""
    return torch.stack([each.attacked for attacked in outcomes.values() for each in attacked]).all(0)


def worst_case(outcomes: Sequence[Outcome]) -> Tensor:
    """Which images are robust to all attacks at one epsilon: bool (images,)."""
    return torch.stack([each.robust for each in outcomes]).all(0)


def rises(name: str, epsilons: Sequence[float], robust: Sequence[Tensor]) -> list[str]:
    """Images robust at one epsilon but not at a smaller one: the larger ball holds the smaller, so they are not.

    epsilons: ascending. robust: bool (images,), for each. One sentence for each pair of epsilons where accuracy rises.
    """
    sentences = []
    for (smaller, before), (larger, after) in pairwise(zip(epsilons, robust, strict=True)):
        if (gain := int(after.sum()) - int(before.sum())) > 0:
            missed = int((after & ~before).sum())
            sentences.append(
                f"{name} leaves {gain} more images robust at epsilon {larger:g} than at {smaller:g}: it misses at "
                f"least {missed} that are not, so it needs more steps or restarts"
            )
    return sentences


def square_breaks_more(outcomes: Sequence[Outcome]) -> list[str]:
    """Gradients may be masked if Square, which needs none, succeeds where gradient attacks of the same epsilon fail."""
    by_gradients = [each for each in outcomes if each.kind != "square"]
    if not by_gradients or len(by_gradients) == len(outcomes):
        return []
    before, after = worst_case(by_gradients), worst_case(outcomes)
    return square_after_gradients(float(before.double().mean()), float(after.double().mean()))


def carried(robust: Sequence[Tensor]) -> Tensor:
    """Carry success upwards: bool (images,) for each epsilon, ascending -> bool (epsilons, images)."""
    return torch.stack(list(robust)).cummin(0).values


def worst_cases(correct: Tensor, outcomes: Mapping[float, Sequence[Outcome]]) -> Tensor:
    """Robust to all attacks, at 0 and at each epsilon: bool (1 + epsilons, images). correct: bool (images,)."""
    return carried([correct, *(worst_case(attacked) for attacked in outcomes.values())])


def disagreements(outcomes: Mapping[float, Sequence[Outcome]]) -> list[str]:
    """Where the curve of searches for the least norm is not that of attacks within each epsilon.

    One sentence if they differ by more than 2 points somewhere, of the epsilon where they differ most.
    """
    curves = []
    for searching in (True, False):
        chosen = [[each for each in attacked if each.finds_least == searching] for attacked in outcomes.values()]
        if not all(chosen):
            return []
        curves.append(carried([worst_case(each) for each in chosen]).double().mean(1))
    by_search, within = curves
    place = int((by_search - within).abs().argmax())
    if float((by_search - within).abs()[place]) <= DISAGREEMENT + 1e-12:
        return []
    epsilon = list(outcomes)[place]
    weaker = "the searches for the least norm are" if by_search[place] > within[place] else "the other attacks are"
    return [
        f"at epsilon {epsilon:g} searches for the least norm leave {by_search[place]:.1%} robust, attacks within "
        f"epsilon {within[place]:.1%}: {weaker} too weak"
    ]


def optimality(clean: float, epsilons: Sequence[float], curve: Sequence[float], best: Sequence[float]) -> float | None:
    """How much of what can be taken from a network an attack takes: 1 if its security curve is the best known one.

    The area between the clean accuracy and the curve over that between it and the best, from 0 to the largest epsilon,
    linear between the epsilons; None where nothing can be taken. clean, curve, best: shares; epsilons: ascending.
    Source: Cinà et al. 2025 (AttackBench), local optimality, which goes up to where the best curve reaches 0.
    """

    def taken(accuracy: Sequence[float]) -> float:
        heights = [0.0, *(clean - each for each in accuracy)]
        return float(torch.trapezoid(torch.tensor(heights).double(), torch.tensor([0.0, *epsilons]).double()))

    return taken(curve) / taken(best) if taken(best) > 0 else None


def lacking(outcomes: Sequence[Outcome]) -> list[str]:
    """What cells that failed leave open, at one epsilon."""
    return [
        f"{each.name} was not tried on {int((~each.attacked).sum())} of {len(each.attacked)} images, because cells "
        "failed: they count as robust, so robust accuracy is an upper bound"
        for each in outcomes
        if not bool(each.attacked.all())
    ]
