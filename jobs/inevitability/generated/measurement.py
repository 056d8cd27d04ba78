"""Networks on generated images: how far these are from another answer, and how far they could be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.passes import outputs
from jobs.inevitability import susceptibility
from jobs.inevitability.bounds.generative import GenerativeBound
from jobs.inevitability.bounds.shares import ClassShare, class_shares
from jobs.inevitability.ceilings.ceiling import Ceiling
from jobs.inevitability.ceilings.ceiling import alarms as ceiling_alarms
from jobs.inevitability.curves import Curve
from jobs.inevitability.generated.generator_params import GeneratedParams
from jobs.inevitability.generated.generators import BATCH, Generator
from jobs.inevitability.generated.images import GeneratedImages
from jobs.inevitability.networks import Variant
from jobs.inevitability.params import CurveParams, Params
from service.run import Run, reserved_device


@dataclass(frozen=True)
class Robustness:
    """Of one network on generated images: an image is robust while the network's answer does not change."""

    network: str
    generator: Generator
    shares: tuple[ClassShare, ...]
    curve: Curve
    bound: GenerativeBound

    @property
    def ceiling(self) -> Ceiling:
        """What the curve does not exceed."""
        epsilons = self.curve.epsilons[1:]
        values = tuple(float(value) for value in self.bound.ceiling(epsilons))
        label, first = f"bound, generator {self.generator.name}", self.bound.first_useful
        return Ceiling("bound", label, "L2", epsilons, values, self.generator.certain, first_useful=first)

    @property
    def half(self) -> float:
        """The distance within which at least half of the images of any classifier with these shares have another
        answer.
        """
        return math.inf if self.bound.unmet else self.bound.epsilon_for(0.5)

    def row(self) -> dict[str, Any]:
        """A row of a table.

        largest_share: of a class among what is generated, its exact 95 % limit from above. first_useful: from which
        distance on the bound says something. half, median_distance: the median distance to another answer, at most and
        as it was found.
        """
        verdict = self.bound.verdict()
        return {
            "network": self.network,
            "generator": self.generator.name,
            "latent": math.prod(self.generator.latent),
            "lipschitz": self.bound.lipschitz,
            "lipschitz_is": "upper limit" if self.generator.certain else "estimate from below",
            "largest_share": max(each.upper for each in self.shares),
            "first_useful": verdict.first_useful,
            "half": self.half,
            "median_distance": self.curve.median_distance,
            "verdict": verdict.kind,
            "sentence": verdict.sentence,
        }

    def curve_rows(self) -> list[dict[str, Any]]:
        """A row of a table for each epsilon, from 0 on, with the ceiling there."""
        ceiling = self.ceiling
        columns = {"ceiling": ceiling.label, "certain": ceiling.certain, "first_useful": ceiling.first_useful}
        values = [1.0, *ceiling.values]
        return [columns | row | {"value": value} for row, value in zip(self.curve.rows(), values, strict=True)]


@dataclass(frozen=True)
class Asked:
    """What all cells share."""

    generator: Generator
    networks: Mapping[str, nn.Module]
    images: Tensor


def measured(
    params: Params,
    section: GeneratedParams,
    curves: CurveParams,
    generator: Generator,
    variants: Sequence[Variant],
    run: Run,
) -> list[Robustness]:
    """Count classes and attack generated images, for every network of resolution 1."""
    whole = [each for each in variants if each.resolution == 1]
    images = generator.images(section.images, run.seed_for("generated images"))
    asked = Asked(generator, {each.label: each.network for each in whole}, images)
    seed = run.seed_for("generated shares")
    cells = [{"network": each.label, "samples": section.samples, "seed": seed} for each in whole]
    answers = [
        (each, result)
        for each, result in zip(whole, run.map(answer, cells, asked, name="generated_answers"), strict=True)
        if result is not None
    ]
    predictions = {each.label: result["predictions"] for each, result in answers}
    subjects = [
        Variant(each.name, "given", 1, each.network, GeneratedImages(images, predictions[each.label], _classes(result)))
        for each, result in answers
    ]
    in_l2 = params.model_copy(update={"epsilons": {"L2": params.epsilons["L2"]}})
    results = susceptibility.measure(in_l2, curves, subjects, predictions, run, "generated_attacks")
    for sentence in susceptibility.doubts(results, subjects, predictions):
        run.warn(f"generated images: {sentence}")
    robustness = []
    for (each, result), measurement in zip(answers, results, strict=True):
        counted = tuple(ClassShare(hits, section.samples) for hits in result["hits"])
        uppers = tuple(share.upper for share in counted)
        bound = GenerativeBound(lipschitz=generator.lipschitz, shares=uppers, form=section.form)
        robustness.append(Robustness(each.label, generator, counted, measurement.curve, bound))
    return robustness


def answer(cell: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """A cell: network, samples and seed. How many new generated images the network gives to each class, hits, and its
    classes of those that are attacked, predictions int64 (images,).
    """
    device = reserved_device()
    network, generator = asked.networks[cell["network"]].to(device), asked.generator.network.to(device)
    stream = torch.Generator(device).manual_seed(cell["seed"])

    def answers(latents: Tensor) -> Tensor:
        logits: Tensor = network(generator(latents))
        return logits

    counted = class_shares(answers, asked.generator.latent, cell["samples"], stream, "latent", BATCH)
    predictions = outputs(network, asked.images, lambda logits: logits.argmax(1), on_cpu=BATCH)
    return {"hits": [each.hits for each in counted], "predictions": predictions}


def alarms(results: Sequence[Robustness]) -> list[str]:
    """Where more generated images keep their answer than any network with these shares can keep."""
    raised = [sentence for each in results for sentence in ceiling_alarms([each.curve], [each.ceiling])]
    return [f"generated images: {sentence}" for sentence in raised]


def _classes(result: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(label) for label in range(len(result["hits"])))
