"""The cells of attacks: what the network says of a slice of the images, and what one attack does to it.

A slice is a few images in a row, attacked as one batch. What comes out of a cell depends on the slice, the attack, the
ball and the seed alone, not on which worker computes it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from jobs.common.attacks import Attack, AttackParams, Ball, Goal, Norm, Search
from jobs.common.attacks.checks import check_batch, check_evaluation_mode
from jobs.common.data.images.base import ImageSet
from jobs.common.models.fit import check_logits, check_sendable, described, first_pass
from service.errors import InputError
from service.run import reserved_device

Span = tuple[int, int]  # the first image of a slice, and the first after it


@dataclass(frozen=True)
class Subject:
    """What all cells share: the network in evaluation mode, the images, and the norm of the balls around them."""

    name: str
    """of the network"""
    network: nn.Module
    images: ImageSet
    norm: Norm


def spans(count: int, size: int) -> list[Span]:
    """The slices of so many images. The last one may be shorter."""
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def check(subject: Subject, attacks: Sequence[Attack], epsilons: Sequence[float]) -> None:
    """InputError, one sentence, about the first thing that is wrong: seen on one image, before hours of attacks."""
    images, labels = subject.images.images(torch.arange(1)), subject.images.labels[:1]
    check_batch(images, labels, None)
    network = subject.network
    check_evaluation_mode(network)
    check_sendable(network, subject.name)
    with first_pass(subject.name, data := described(subject.images)):
        check_logits(network(images), (1, None), subject.name, data)
        logits = Search(network, images, Goal(labels), Ball(subject.norm, epsilons[0])).clean_logits
    if logits.shape[1] < (known := len(subject.images.classes)):
        data = f"{known}, the number of classes of {subject.images.name}"
        raise InputError(f"network {subject.name!r} must have at least {data}; it has {logits.shape[1]}")
    for attack in attacks:
        for epsilon in epsilons:
            attack.check(Ball(subject.norm, epsilon), images, logits.shape[1])


def predict(span: Span, subject: Subject) -> Tensor:
    """The classes that the network gives to the clean images of a slice: int64 (slice,)."""
    images, _ = _batch(subject, *span)
    with torch.no_grad():
        predictions: Tensor = subject.network.to(reserved_device())(images).argmax(1)
    return predictions.cpu()


def attack(cell: dict[str, Any], subject: Subject) -> dict[str, Any]:
    """Attack the images of a slice.

    cell: span; attack, its kind and options; epsilon; seed; show, how many adversarial images are kept.
    Returns tensors (slice,): successful, not_finite, distances (the least norm known to succeed, or inf), queries,
    gradients; shown, the rows of successes (k,), their adversarials (k, channels, height, width) and the classes that
    the network gives to these (k,); seconds and warnings.
    """
    began = time.perf_counter()
    images, labels = _batch(subject, *cell["span"])
    network = subject.network.to(reserved_device())
    chosen = TypeAdapter(AttackParams).validate_python(cell["attack"])
    ball, first = Ball(subject.norm, cell["epsilon"]), cell["span"][0]
    result = chosen.run(network, images, labels, ball, cell["seed"], first=first)
    seconds = time.perf_counter() - began
    # those at distance 0 were misclassified without an attack
    shown = (result.successful & (result.distances > 0)).nonzero().flatten()[: cell["show"]]
    adversarials = result.adversarials[shown]
    with torch.no_grad():
        predictions = network(adversarials).argmax(1) if len(shown) else shown
    return {
        "successful": result.successful.cpu(),
        "not_finite": result.not_finite.cpu(),
        "distances": result.minimum_distances.cpu(),
        "queries": result.queries.cpu(),
        "gradients": result.gradients.cpu(),
        "shown": [shown.cpu(), adversarials.cpu(), predictions.cpu()],
        "seconds": seconds,
        "warnings": list(result.warnings),
    }


def _batch(subject: Subject, first: int, end: int) -> tuple[Tensor, Tensor]:
    images = subject.images.images(torch.arange(first, end))
    return images.to(reserved_device()), subject.images.labels[first:end].to(reserved_device())
