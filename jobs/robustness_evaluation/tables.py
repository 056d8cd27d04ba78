"""The tables of an evaluation, as rows, from what each attack did at each epsilon."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jobs.common.attacks.checks import merged
from jobs.common.data.images.base import ImageSet
from jobs.common.metrics.intervals import wilson
from jobs.common.robustness import outcomes as robustness
from jobs.common.robustness.outcomes import (
    Outcome,
    disagreements,
    lacking,
    rises,
    square_breaks_more,
    tried_by_all,
    worst_case,
    worst_cases,
)

CLEAN, WORST_CASE = "no attack", "worst case"  # with a space, so that no attack of a spec has such a name

Outcomes = Mapping[float, Sequence[Outcome]]  # epsilon, ascending -> one for each attack, in one order


def accuracies(correct: Tensor, outcomes: Outcomes) -> list[dict[str, Any]]:
    """Accuracy on the clean images, under each attack at each epsilon, and in the worst case over the attacks.

    correct: bool (images,). queries and gradients are means over the images that the attack was tried on, seconds the
    sum over the slices; not_finite: how many images had points at which the logits were not finite, which are no
    successes. They are of the epsilon at which was searched, and None at the others that a search for the least norm
    tells as well.
    """
    rows = [_accuracy(CLEAN, 0.0, correct)]
    for epsilon, attacked in outcomes.items():
        for each in attacked:
            row = _accuracy(each.name, epsilon, each.robust)
            if _searched(each, outcomes) and bool((tried := each.attacked).any()):
                row |= {"queries": _mean(each.queries[tried]), "gradients": _mean(each.gradients[tried])}
                row["seconds"] = each.seconds
                row["not_finite"] = int(each.not_finite.sum())
            rows.append(row)
        rows.append(_accuracy(WORST_CASE, epsilon, worst_case(attacked)))
    return rows


def _accuracy(attack: str, epsilon: float, robust: Tensor) -> dict[str, Any]:
    low, high = wilson(int(robust.sum()), len(robust))
    row = {"attack": attack, "epsilon": epsilon, "accuracy": _mean(robust), "low": low, "high": high}
    return {**row, "images": len(robust), **dict.fromkeys(("queries", "gradients", "seconds", "not_finite"))}


def warnings(outcomes: Outcomes) -> list[str]:
    """Why the numbers may flatter the network, one sentence for each doubt.

    Those of one attack in several slices are one, with how many slices it was raised in; those of a search for the
    least norm are of the epsilon at which was searched. Attacks are compared on images that all of them were tried on:
    those of cells that failed say nothing of an attack.
    """
    raised = [
        f"{each.name} at epsilon {epsilon:g}, {slices} slices: {sentence}"
        for epsilon, attacked in outcomes.items()
        for each in attacked
        if _searched(each, outcomes)
        for sentence, slices in merged(each.warnings).items()
    ]
    raised += [
        f"at epsilon {epsilon:g}: {sentence}"
        for epsilon, attacked in outcomes.items()
        for sentence in lacking(attacked)
    ]
    tried = tried_by_all(outcomes)
    if not bool(tried.any()):
        return raised
    compared = _of(tried, outcomes)
    doubts = [
        f"at epsilon {epsilon:g}: {sentence}"
        for epsilon, attacked in compared.items()
        for sentence in square_breaks_more(attacked)
    ]
    curves = {
        each.name: [attacked[place].robust for attacked in compared.values()] for place, each in _attacks(compared)
    }
    curves[WORST_CASE] = [worst_case(attacked) for attacked in compared.values()]
    for name, robust in curves.items():
        doubts += rises(name, list(compared), robust)
    return raised + doubts + disagreements(compared)


def distances(correct: Tensor, outcomes: Outcomes, names: Sequence[str]) -> list[dict[str, Any]]:
    """Quartiles of the least perturbations of images classified correctly, of the attacks that look for them.

    found: the share of these images that one is known for; the quartiles are over all, infinite beyond that share.
    Images of cells that failed are left out.
    """
    rows = []
    for _, each in _attacks(outcomes):
        if each.name in names and bool((searched := correct & each.attacked).any()):
            least = each.distances[searched]
            quartiles = torch.quantile(least, least.new_tensor([0.0, 0.25, 0.5, 0.75]), interpolation="higher").tolist()
            columns = dict(zip(("least", "quarter", "median", "three_quarters"), quartiles, strict=True))
            rows.append({"attack": each.name, "norm": each.ball.norm, "found": _mean(least.isfinite()), **columns})
    return rows


def optimality(correct: Tensor, outcomes: Outcomes) -> list[dict[str, Any]]:
    """How near the security curve of each attack is to the best known one, of two attacks or more.

    passes: forward and back, the mean over the images, at all epsilons together; an attack that finds the least norm
    is run once for all of them. The images are those that all attacks were tried on.
    """
    tried = tried_by_all(outcomes)
    if min(map(len, outcomes.values())) < 2 or not bool(tried.any()):
        return []
    correct, outcomes = correct[tried], _of(tried, outcomes)
    best = worst_cases(correct, outcomes).double().mean(1).tolist()[1:]
    rows = []
    for place, each in _attacks(outcomes):
        own = [attacked[place] for attacked in outcomes.values()]
        searches = own[-1:] if each.finds_least else own
        score = robustness.optimality(_mean(correct), list(outcomes), [one.accuracy for one in own], best)
        passes = sum(_mean(one.queries) + _mean(one.gradients) for one in searches)
        rows.append({"attack": each.name, "optimality": score, "passes": passes, "searches": len(searches)})
    return rows


def images(data: ImageSet, predictions: Tensor, outcomes: Outcomes) -> list[dict[str, Any]]:
    """One row for each image, attack and epsilon. What a cell that failed would have told is absent.

    predictions: int64 (images,), of the clean images. distance: the least norm known to change the answer. queries,
    gradients and not_finite are of the epsilon at which was searched, as in `accuracies`.
    """
    labels, predicted = data.labels.tolist(), predictions.tolist()
    rows = []
    for epsilon, attacked in outcomes.items():
        for each in attacked:
            columns = {
                "successful": ~each.robust,
                "not_finite": each.not_finite,
                "distance": each.distances,
                "queries": each.queries,
                "gradients": each.gradients,
            }
            idle = {} if _searched(each, outcomes) else dict.fromkeys(("not_finite", "queries", "gradients"))
            values = zip(*(column.tolist() for column in columns.values()), strict=True)
            for index, (tried, row) in enumerate(zip(each.attacked.tolist(), values, strict=True)):
                outcome = dict(zip(columns, row, strict=True)) | idle
                rows.append(
                    {
                        "index": index,
                        "label": labels[index],
                        "prediction": predicted[index],
                        "attack": each.name,
                        "epsilon": epsilon,
                        **(outcome if tried else dict.fromkeys(outcome)),
                    }
                )
    return rows


def _searched(outcome: Outcome, outcomes: Outcomes) -> bool:
    """Whether the attack was run for this outcome: a search for the least norm is, at the largest epsilon alone."""
    return not outcome.finds_least or outcome.ball.epsilon == max(outcomes)


def _attacks(outcomes: Outcomes) -> list[tuple[int, Outcome]]:
    """The place of each attack, and its outcome at the largest epsilon."""
    return list(enumerate(outcomes[max(outcomes)]))


def _of(images: Tensor, outcomes: Outcomes) -> Outcomes:
    """The outcomes of some of the images alone. images: bool (images,)."""
    return {epsilon: [each.of(images) for each in attacked] for epsilon, attacked in outcomes.items()}


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
