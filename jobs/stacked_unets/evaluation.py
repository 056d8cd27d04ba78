"""How well a network segments a set of images, and what each of its u-nets contributes to that."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs.common.data.masks.base import SegmentationSet
from jobs.common.metrics.segmentation import IGNORE, confusion
from jobs.common.models.classifiers.sunet import UNetModule
from jobs.common.training import parallel
from jobs.common.training.optimizers import device_of
from jobs.stacked_unets.prediction import PredictionParams, predict, prepared

MANY = 32  # images from which on it takes less time to prepare a network than it saves


def evaluate(network: nn.Module, images: SegmentationSet, params: PredictionParams) -> Tensor:
    """The confusion matrix over a set: int64 (classes, classes), truth by prediction, the same on every rank.

    The network is in evaluation mode. Each rank takes every world()-th image.
    """
    classes = len(images.classes)
    if len(images) >= MANY:
        network = prepared(network)
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for index in range(parallel.rank(), len(images), parallel.world()):
        image, labels = images.pair(index)
        segmentation = predict(network, image.float() / 255, params)
        matrix += confusion(labels, segmentation.labels, classes)
    return parallel.total(matrix.to(device_of(network))).cpu()


@dataclass(frozen=True)
class NamedUNet:
    """A u-net of a stack. name: its stage and its place in that, counted from 1."""

    name: str
    module: UNetModule


def unets(network: nn.Module) -> list[NamedUNet]:
    """The u-nets of a network in order; none if it is made of something else."""
    layers = [(name.split("."), layer) for name, layer in network.named_modules() if isinstance(layer, UNetModule)]
    return [NamedUNet(f"{int(path[-2]) + 1}.{int(path[-1]) + 1}", layer) for path, layer in layers]


@contextmanager
def without(unet: NamedUNet) -> Iterator[None]:
    """Inside, a module adds nothing: what remains of it is its shortcut."""
    handle = unet.module.unet.register_forward_hook(lambda _, __, added: torch.zeros_like(added))
    try:
        yield
    finally:
        handle.remove()


def gains(network: nn.Module, image: Tensor, labels: Tensor) -> list[Tensor]:
    """What each u-net does for the probability of the true class of each pixel: in [-1, 1], 0 where none counts.

    image: (channels, height, width) in [0, 1]. labels: uint8 (height, width). Returns float (height, width) each, the
    probability with all u-nets less that without this one, in the order of the stack.
    """
    images, chosen = image[None].to(device_of(network)), labels.long().where(labels != IGNORE, 0)[None]

    def of_truth() -> Tensor:
        with torch.no_grad():
            probabilities: Tensor = network(images).softmax(1).cpu()
        return probabilities.gather(1, chosen[None])[0, 0]

    whole, gained = of_truth(), []
    for each in unets(network):
        with without(each):
            gained.append((whole - of_truth()).where(labels != IGNORE, 0.0))
    return gained
