"""What a classifier says of a set of images, and how often it is right: of all, and of each class."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.training import parallel
from jobs.common.training.optimizers import device_of


def batches(count: int, batch: int) -> Iterator[tuple[int, Tensor]]:
    """The number and the rows of each batch that is this rank's: int64 (batch,), the last one may be shorter."""
    for number, first in enumerate(range(0, count, batch)):
        if number % parallel.world() == parallel.rank():
            yield number, torch.arange(first, min(first + batch, count))


def predictions(network: nn.Module, images: ImageSet, batch: int) -> Tensor:
    """The classes that a network gives to the images of a set: int64 (images,), the same on every rank.

    network: in evaluation mode. batch: images in a pass.
    """
    predicted = torch.zeros(len(images), dtype=torch.int64)
    for _, rows in batches(len(images), batch):
        with torch.no_grad():
            predicted[rows] = network(images.images(rows).to(device_of(network))).argmax(1).cpu()
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
