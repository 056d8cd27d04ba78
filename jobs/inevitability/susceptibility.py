"""The curves of networks, on all workers there are: a cell is an attack at one epsilon on a slice of the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.common.attacks import Norm
from jobs.common.attacks.checks import merged
from jobs.common.data.images.base import ImageSet
from jobs.common.robustness import slices
from jobs.common.robustness.outcomes import (
    disagreements,
    lacking,
    outcomes_at,
    rises,
    searches,
    worst_case,
    worst_cases,
)
from jobs.common.robustness.slices import Span, Subject, spans
from jobs.inevitability.curves import Curve, least_distances
from jobs.inevitability.networks import Variant, never_predicted
from jobs.inevitability.params import CurveParams, Params
from jobs.inevitability.resolutions import factor, norms_of
from service.errors import RunFailedError
from service.run import Run

BATCH = 1000  # images whose norms are computed at once


@dataclass(frozen=True)
class Measured:
    """A curve, and the work for it."""

    label: str
    """of the network"""
    curve: Curve
    queries: float
    """forward passes of an image, in the mean"""
    gradients: float
    """backward passes of an image, in the mean"""
    warnings: tuple[str, ...]
    """why the curve may flatter the network"""


def epsilons_at(params: Params, norm: Norm, resolution: int) -> tuple[float, ...]:
    """Sizes at a resolution, ascending: scaled as images are, and also as they are if the spec says so."""
    scaled = {epsilon * factor(norm, resolution) for epsilon in params.epsilons[norm]}
    fixed = set(params.epsilons[norm]) if params.curves is not None and params.curves.fixed else set()
    return tuple(sorted(scaled | fixed))


def check(params: Params, variants: Sequence[Variant]) -> None:
    """InputError, one sentence, about the first thing that does not fit: seen on one image, before hours of work."""
    for each in variants:
        for norm in params.epsilons:
            subject = Subject(each.label, each.network, each.images, norm)
            attacks = list(params.attacks_of(norm).values())
            slices.check(subject, attacks, epsilons_at(params, norm, each.resolution))


def predictions_of(params: Params, variants: Sequence[Variant], run: Run) -> dict[str, Tensor]:
    """The classes that every network gives to its clean images, int64 (images,), by its label."""
    parts = {each.label: spans(len(each.images), params.slice) for each in variants}
    asked = [{"network": label, "span": list(span)} for label, own in parts.items() for span in own]
    clean = run.map(predict, asked, _subjects(variants), name="clean")
    if any(each is None for each in clean):
        raise RunFailedError("some predictions on the clean images failed, without which no attack can be judged")
    answers = iter(clean)
    return {label: torch.cat([next(answers) for _ in own]) for label, own in parts.items()}


def measure(
    params: Params,
    section: CurveParams,
    variants: Sequence[Variant],
    predictions: Mapping[str, Tensor],
    run: Run,
    cells: str = "attacks",
) -> list[Measured]:
    """The curve of every network in every norm. predictions: as of `predictions_of`. cells: what they are called."""
    parts = {each.label: spans(len(each.images), params.slice) for each in variants}
    by_search = {
        (each.label, norm, name, epsilon): [
            _cell(params, section, run, each.label, norm, name, epsilon, span) for span in parts[each.label]
        ]
        for each in variants
        for norm in params.epsilons
        for name, epsilon in searches(params.attacks_of(norm), epsilons_at(params, norm, each.resolution))
    }
    outcomes = iter(
        run.map(attack, [cell for own in by_search.values() for cell in own], _subjects(variants), name=cells)
    )
    results = {search: [next(outcomes) for _ in own] for search, own in by_search.items()}
    measured = []
    for each in variants:
        for norm in params.epsilons:
            own = {search[2:]: result for search, result in results.items() if search[:2] == (each.label, norm)}
            measured.append(_curve(params, each, norm, predictions[each.label], parts[each.label], own))
    return measured


def _subjects(variants: Sequence[Variant]) -> dict[str, Subject]:
    """What cells share, by the label of the network; the norm is one of the cell."""
    return {each.label: Subject(each.label, each.network, each.images, "Linf") for each in variants}


def predict(cell: dict[str, Any], subjects: Mapping[str, Subject]) -> Tensor:
    """The classes that a network gives to the clean images of a slice: int64 (slice,)."""
    first, end = cell["span"]
    return slices.predict((first, end), subjects[cell["network"]])


def attack(cell: dict[str, Any], subjects: Mapping[str, Subject]) -> dict[str, Any]:
    """Attack a slice of the images of a network in a norm; see `slices.attack`."""
    whole = subjects[cell["network"]]
    return slices.attack(cell, Subject(whole.name, whole.network, whole.images, cell["norm"]))


def _cell(
    params: Params, section: CurveParams, run: Run, label: str, norm: Norm, name: str, epsilon: float, span: Span
) -> dict[str, Any]:
    """What `attack` is to do. The seed depends on neither network nor epsilon: curves compare like with like."""
    return {
        "network": label,
        "norm": norm,
        "span": list(span),
        "attack": section.attacks[name].model_dump(mode="json"),
        "epsilon": epsilon,
        "seed": run.seed_for("attack", norm, name, span[0]),
        "show": 0,
    }


def _curve(
    params: Params,
    variant: Variant,
    norm: Norm,
    predictions: Tensor,
    parts: Sequence[Span],
    results: Mapping[tuple[str, float], Sequence[dict[str, Any] | None]],
) -> Measured:
    attacks, epsilons = params.attacks_of(norm), epsilons_at(params, norm, variant.resolution)
    correct = predictions == variant.images.labels
    outcomes = outcomes_at(attacks, norm, epsilons, correct, parts, results)
    curve = Curve(
        variant.name,
        variant.kind,
        variant.resolution,
        norm,
        (0.0, *epsilons),
        worst_cases(correct, outcomes),
        least_distances(correct, outcomes),
        mean_norm(variant.images, norm),
    )
    computed = [outcome for name, epsilon in results for outcome in outcomes[epsilon] if outcome.name == name]
    raised = [
        f"{each.name} at epsilon {each.ball.epsilon:g}, {count} slices: {sentence}"
        for each in computed
        for sentence, count in merged(each.warnings).items()
    ]
    sentences = [
        *raised,
        *disagreements(outcomes),
        *rises("the worst case", epsilons, [worst_case(attacked) for attacked in outcomes.values()]),
        *dict.fromkeys(sentence for attacked in outcomes.values() for sentence in lacking(attacked)),
    ]
    return Measured(
        variant.label,
        curve,
        sum(float(each.queries.double().mean()) for each in computed),
        sum(float(each.gradients.double().mean()) for each in computed),
        tuple(f"{variant.label} in {norm}: {sentence}" for sentence in sentences),
    )


def mean_norm(images: ImageSet, norm: Norm) -> float:
    """The mean norm of the images."""
    parts = [torch.arange(first, end) for first, end in spans(len(images), BATCH)]
    return float(torch.cat([norms_of(images.images(rows), norm) for rows in parts]).mean())


def doubts(measured: Sequence[Measured], variants: Sequence[Variant], predictions: Mapping[str, Tensor]) -> list[str]:
    """What readers of the curves should know, one sentence each."""
    sentences = [sentence for each in measured for sentence in each.warnings]
    for each in variants:
        if lacks := never_predicted(predictions[each.label], each.images):
            sentences.append(f"{each.label} names the class {', '.join(lacks)} for none of the images")
    return sentences
