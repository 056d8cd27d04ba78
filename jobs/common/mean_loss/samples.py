"""The images that a loss is the mean over, as a network takes them."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs.common.data.batches import permutation
from jobs.common.data.images.base import ImageSet
from jobs.common.models.classifiers import Classifier
from service.errors import FieldError, InputError

MOST_BYTES = 16 << 30


@dataclass(frozen=True)
class Samples:
    """Images and their classes. images: float32 (n, channels, height, width), channels last. labels: int64 (n,)."""

    images: Tensor
    labels: Tensor

    def first(self, count: int) -> "Samples":
        """The first ones, at most `count`."""
        return Samples(self.images[:count], self.labels[:count])


def drawn(images: ImageSet, count: int | None, seed: int) -> Tensor:
    """Which images of the set are used: int64 (count,), in a random order; none: all. FieldError if there are fewer."""
    if count is not None and count > len(images):
        raise FieldError("images", f"be at most {len(images):,}, the number of images of {images.name}", count)
    return permutation(len(images), seed)[:count]


def check_size(images: ImageSet, count: int) -> None:
    """InputError if so many images do not fit into memory."""
    if (size := 4 * count * images.images(torch.arange(1)).numel()) > MOST_BYTES:
        raise InputError(
            f"{count:,} images of {images.name} must take at most {MOST_BYTES >> 30} GB; they take {size / 2**30:.0f}",
            hint="give `images`, a number of them to draw; the surface then has error bars",
        )


def normalised(network: nn.Module, images: ImageSet, indices: Tensor) -> tuple[nn.Module, Samples]:
    """A network without its normalisation, and the images behind it: so that they are normalised once, not per point.

    Both are copies. InputError if the images do not fit into memory.
    """
    check_size(images, len(indices))
    network = copy.deepcopy(network).eval()
    pixels = images.images(indices)
    if isinstance(network, Classifier):
        with torch.no_grad():
            pixels = network.normalise(pixels)
        network.normalise = nn.Identity()
    return network, Samples(pixels.contiguous(memory_format=torch.channels_last), images.labels[indices])
