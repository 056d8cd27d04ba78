"""Accuracy on a set of images, clean and under attack. Several ranks take the batches in turn; all know the result."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs.common.attacks.ball import Ball
from jobs.common.attacks.base import Attack
from jobs.common.attacks.checks import merged
from jobs.common.data.images.base import ImageSet
from jobs.common.metrics.classification import batches, predictions
from jobs.common.training import parallel
from jobs.common.training.optimizers import device_of


@dataclass(frozen=True)
class Verdict:
    """What an attack did to each image of a set."""

    robust: Tensor
    """bool (images,): classified correctly, and the attack did not succeed"""
    queries: Tensor
    """int64 (images,): forward passes"""
    gradients: Tensor
    """int64 (images,): backward passes"""
    warnings: tuple[str, ...]
    """why the attack may flatter the network"""


def correct(network: nn.Module, images: ImageSet, batch: int) -> Tensor:
    """Which images are classified correctly: bool (images,). network: in evaluation mode."""
    return predictions(network, images, batch) == images.labels


def attacked(
    network: nn.Module, images: ImageSet, attack: Attack, ball: Ball, batch: int, seed: Callable[[int], int]
) -> Verdict:
    """Attack a whole set. network: in evaluation mode. seed: of each batch, by its number. InputError: see Attack.run.

    The result depends on the batch, but not on the number of ranks.
    """
    counters = torch.zeros(3, len(images), dtype=torch.int64)  # robust, queries, gradients
    warnings: list[str] = []
    device = device_of(network)
    for index, rows in batches(len(images), batch):
        pixels, labels = images.images(rows).to(device), images.labels[rows].to(device)
        result = attack.run(network, pixels, labels, ball, seed(index), first=int(rows[0]))
        counters[:, rows] = torch.stack([(~result.successful).long(), result.queries, result.gradients]).cpu()
        warnings += result.warnings
    robust, queries, gradients = parallel.total(counters)
    return Verdict(robust.bool(), queries, gradients, tuple(merged(parallel.sentences(warnings))))
