"""The images that a loss is the mean over, as a network takes them."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs.common.data.batches import permutation
from jobs.common.data.images.base import ImageSet
from jobs.common.models.classifiers import Classifier
from service.errors import InputError

MOST_BYTES = 16 << 30


@dataclass(frozen=True)
class Points:
    """Images and their classes. images: float32 (n, channels, height, width), channels last. labels: int64 (n,)."""

    images: Tensor
    labels: Tensor


def draw(images: ImageSet, count: int | None, seed: int) -> Tensor:
    """Which images are used: int64 (count,), in a random order; none: all. InputError if there are fewer."""
    if count is not None and count > len(images):
        raise InputError(f"images: {count} asked, {images.name} has {len(images)}")
    return permutation(len(images), seed)[:count]


def as_seen(network: nn.Module, images: ImageSet, chosen: Tensor) -> tuple[nn.Module, Points]:
    """A network without its normalisation, and the images behind it: so that they are normalised once, not per point.

    Both are copies. InputError if the images do not fit into memory.
    """
    if (size := 4 * len(chosen) * images.images(torch.arange(1)).numel()) > MOST_BYTES:
        raise InputError(
            f"{len(chosen):,} images of {images.name} take {size / 2**30:.0f} GB, {MOST_BYTES >> 30} are allowed",
            hint="give `images`, a number of them to draw; the surface then has error bars",
        )
    network = copy.deepcopy(network).eval()
    pixels = images.images(chosen)
    if isinstance(network, Classifier):
        with torch.no_grad():
            pixels = network.normalise(pixels)
        network.normalise = nn.Identity()
    return network, Points(pixels.contiguous(memory_format=torch.channels_last), images.labels[chosen])
