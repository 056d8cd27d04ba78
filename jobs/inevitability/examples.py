"""Images, and what perturbations of several norms make of them: one network, one budget a column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from jobs.common.attacks import AttackParams, Ball
from jobs.common.robustness.slices import Subject
from jobs.inevitability.networks import Variant
from jobs.inevitability.params import ExampleParams
from service.errors import within
from service.run import Run, reserved_device


@dataclass(frozen=True)
class Perturbed:
    """What a budget makes of some images."""

    title: str
    images: Tensor
    """(k, channels, height, width) in [0, 1]"""
    classes: Tensor
    """int64 (k,), as the network sees them"""
    confidences: Tensor
    """(k,), in [0, 1]"""


def perturbed(params: ExampleParams, variant: Variant, predictions: Tensor, run: Run) -> list[Perturbed]:
    """The first images that are classified correctly, as they are and within each budget; without cells that failed.

    predictions: int64 (images,), for the clean images.
    """
    rows = (predictions == variant.images.labels).nonzero().flatten()[: params.images].tolist()
    if not rows:
        return []
    clean = {"rows": rows, "norm": "Linf", "epsilon": 0.0, "attack": None, "seed": 0}
    cells = [clean] + [
        {
            "rows": rows,
            "norm": budget.norm,
            "epsilon": budget.epsilon,
            "attack": budget.attack.model_dump(mode="json"),
            "seed": run.seed_for("examples", budget.norm),
        }
        for budget in params.budgets
    ]
    titles = ["original", *(f"{budget.norm} {budget.epsilon:g}" for budget in params.budgets)]
    subject = Subject(variant.label, variant.network, variant.images, "Linf")
    results = run.map(perturb, cells, subject, name="examples")
    return [
        Perturbed(title, result["images"], result["classes"], result["confidences"])
        for title, result in zip(titles, results, strict=True)
        if result is not None
    ]


def chosen(params: ExampleParams, variants: Sequence[Variant]) -> Variant:
    """The network of the examples. variants: in the order of the spec."""
    name = params.network or variants[0].name
    return next(each for each in variants if each.name == name)


def check(params: ExampleParams, variants: Sequence[Variant]) -> None:
    """InputError if a budget does not fit the images of the network: before it is trained. variants: as above."""
    variant = chosen(params, variants)
    images = variant.images.images(torch.arange(1))
    for place, budget in enumerate(params.budgets):
        with within(f"examples.budgets.{place}"):
            budget.attack.check(Ball(budget.norm, budget.epsilon), images, len(variant.images.classes))


def perturb(cell: dict[str, Any], subject: Subject) -> dict[str, Tensor]:
    """Perturb some images within one budget, and what the network says of them; without an attack, as they are.

    Returns images (k, channels, height, width), classes (k,) and the confidences in these (k,).
    """
    device = reserved_device()
    network, rows = subject.network.to(device), torch.tensor(cell["rows"])
    images, labels = subject.images.images(rows).to(device), subject.images.labels[rows].to(device)
    if cell["attack"] is not None:
        attack = TypeAdapter(AttackParams).validate_python(cell["attack"])
        images = attack.run(network, images, labels, Ball(cell["norm"], cell["epsilon"]), cell["seed"]).adversarials
    with torch.no_grad():
        confidences, classes = network(images).softmax(1).max(1)
    return {"images": images.cpu(), "classes": classes.cpu(), "confidences": confidences.cpu()}
