"""What a classifier says of a set of images, and how often it is right: of all, and of each class."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.passes import passes
from jobs.common.training import parallel
from jobs.common.training.optimizers import device_of


def batches(count: int, batch: int) -> Iterator[tuple[int, Tensor]]:
    """The number and the rows of each batch that is this rank's: int64 (batch,), the last one may be shorter."""
    for number, first in enumerate(range(0, count, batch)):
        if number % parallel.world() == parallel.rank():
            yield number, torch.arange(first, min(first + batch, count))


def predictions(network: nn.Module, images: ImageSet, batch: int) -> Tensor:
    """The classes that a network gives to the images of a set: int64 (images,), the same on every rank.

    network: in evaluation mode. batch: images in a pass on a CPU.
    """
    predicted = torch.zeros(len(images), dtype=torch.int64)
    own = torch.cat([predicted[:0], *(rows for _, rows in batches(len(images), batch))])

    @torch.no_grad()
    def classes(rows: slice) -> Tensor:
        answers: Tensor = network(images.images(own[rows]).to(device_of(network))).argmax(1)
        return answers.cpu()

    parts = passes(classes, len(own), network, images.shape, purpose="predictions", on_cpu=batch)
    predicted[own] = torch.cat([predicted[:0], *parts])
    return parallel.total(predicted)


def accuracy_of_classes(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class: how many images it has, and the share of them that is classified correctly, if any.

    predicted, labels: int64 (images,). classes: names by label.
    """
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    correct = torch.bincount(labels[predicted == labels], minlength=len(classes)).tolist()
    return [
        {"class": name, "images": count, "accuracy": right / count if count else None}
        for name, count, right in zip(classes, counts, correct, strict=True)
    ]
