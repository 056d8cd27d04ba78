"""What a labelled set of images is, and the two forms that fit all sources: pixels in memory, and a part of a set."""

import copy
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.data.sets import DataSet, FolderParams, Subset
from service.errors import InputError


class ImageSet(DataSet, Protocol):
    """Images of one shape, each with a class."""

    shape: tuple[int, int, int]
    """channels, height and width of an image"""
    labels: Tensor
    """int64 (n,), in 0..len(classes)-1"""
    resize: int | None
    """pixels that the shorter side of a file is brought to before its centre is cut out, for evaluation; None: files
    have the shape already. A set of the user's own may leave it out."""

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images at int64 (k,) indices: float32 (k, channels, height, width) in [0, 1].

        generator: draws random crops, as for training, where the images are larger than `shape` says; None cuts them
        at the centre. A set whose images have the shape already needs none.
        """


class Source(FolderParams):
    """Where a set of images lies, and what it does not say of itself."""

    download: bool = Field(False, description="fetch a set that is not there, if torchvision knows where it is")
    image_size: int = Field(224, ge=8, le=1024, description="side that the images of a folder are cut to, in pixels")


def resize_of(images: ImageSet) -> int | None:
    """As `ImageSet.resize`, also of a set that does not say."""
    return getattr(images, "resize", None)


class Pixels:
    """A set that fits into memory."""

    resize = None

    def __init__(self, name: str, classes: Sequence[str], pixels: Tensor, labels: Tensor, white: int = 255) -> None:
        """pixels: uint8 (n, channels, height, width), 0..white. labels: int64 (n,)."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or len(pixels) != len(labels) or not len(labels):
            raise InputError(f"{name}: {len(labels)} labels for pixels of {pixels.dtype} {tuple(pixels.shape)}")
        if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
            bounds = f"from {int(labels.min())} to {int(labels.max())}"
            raise InputError(f"labels of {name} must be from 0 to {len(classes) - 1}; they are {bounds}")
        self.name, self.classes, self.labels = name, tuple(classes), labels
        self.shape: tuple[int, int, int] = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        self._pixels, self._white = pixels, white

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps([self.classes, self.shape, self._white]).encode())
        digest.update(self._pixels.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._pixels[indices].float() / self._white

    @property
    def bytes(self) -> int:
        """Of its pixels in memory."""
        return self._pixels.numel()

    def to(self, device: torch.device) -> "Pixels":
        """The same set with pixels and labels on a device; indices are on the CPU or there."""
        moved = copy.copy(self)
        moved._pixels, moved.labels = self._pixels.to(device), self.labels.to(device)
        return moved


class Part(Subset):
    """Some images of a set."""

    def __init__(self, whole: ImageSet, indices: Tensor) -> None:
        """indices: int64 (k,)."""
        super().__init__(whole, indices)
        self.shape: tuple[int, int, int] = whole.shape
        self.labels, self.resize = whole.labels[indices], resize_of(whole)

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        images: Tensor = self.whole.images(self.indices[indices], generator)
        return images
