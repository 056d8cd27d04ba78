"""What a set of images with a class for every pixel is, and its forms: pixels in memory, files, and a part of a set."""

import colorsys
import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from jobs.common.data.image_files import decode
from jobs.common.data.sets import DataSet, FolderParams, Subset
from jobs.common.metrics.segmentation import IGNORE
from jobs.common.params import ONCE
from service.errors import InputError

Colour = tuple[int, int, int]
MOST_CLASSES = IGNORE  # labels are bytes


class SegmentationSet(DataSet, Protocol):
    """Colour images of any size, each with a map of labels."""

    palette: tuple[Colour, ...]
    """of each class in pictures: red, green, blue, 0 to 255"""
    in_memory: bool
    """whether a pair costs next to nothing"""

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """An image uint8 (3, height, width), and its labels uint8 (height, width) in 0..len(classes)-1 or IGNORE."""


class Source(FolderParams):
    """Where a set of images with masks lies, and what it does not say of itself."""

    side: int = Field(64, ge=16, le=1024, description="of images that are made or cut out of a mosaic, in pixels")
    classes: Annotated[tuple[str, ...], ONCE] = Field(
        (), max_length=MOST_CLASSES, description="names by label, of a folder of images and masks"
    )
    colours: Annotated[tuple[str, ...], ONCE] = Field(
        (),
        description="of each class in all masks, also grey ones: e.g. ['#000000', '#ffffff']; none: labels",
    )


def labels_in(images: SegmentationSet) -> set[int]:
    """The labels that occur in a set, with IGNORE. Reading ends as soon as all classes have occurred."""
    labels: set[int] = set()
    for index in range(len(images)):
        labels |= set(torch.bincount(images.pair(index)[1].flatten()).nonzero().flatten().tolist())
        if labels.issuperset(range(len(images.classes))):
            break
    return labels


class Pairs:
    """A set that fits into memory; its images have one size."""

    in_memory = True

    def __init__(
        self, name: str, classes: Sequence[str], palette: Sequence[Colour], images: Tensor, labels: Tensor
    ) -> None:
        """images: uint8 (n, 3, height, width). labels: uint8 (n, height, width)."""
        self.name, self.classes, self.palette = name, tuple(classes), tuple(palette)
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        digest.update(self._images.contiguous().numpy().data)
        digest.update(self._labels.contiguous().numpy().data)
        return digest.hexdigest()

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        return self._images[index], self._labels[index]

    @property
    def bytes(self) -> int:
        """Of its pixels and labels in memory."""
        return self._images.nbytes + self._labels.nbytes

    def to(self, device: torch.device) -> "Pairs":
        """The same set with pixels and labels on a device."""
        moved = copy.copy(self)
        moved._images, moved._labels = self._images.to(device), self._labels.to(device)
        return moved


class Files:
    """Images and masks on disk, decoded whenever they are asked for."""

    in_memory = False

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        palette: Sequence[Colour],
        files: Sequence[tuple[Path, Path]],
        read_labels: Callable[[Path], Tensor],
    ) -> None:
        """files: an image and its mask each. read_labels: of a mask. InputError if there are none."""
        if not files:
            raise InputError(f"{name}: there is no image with a mask")
        self.name, self.classes, self.palette = name, tuple(classes), tuple(palette)
        self._files, self._read_labels = list(files), read_labels

    def __len__(self) -> int:
        return len(self._files)

    @cached_property
    def digest(self) -> str:
        """Of the names and sizes of all files, not of their bytes."""
        listed = [(file.name, file.stat().st_size) for pair in self._files for file in pair]
        return hashlib.sha256(json.dumps([self.classes, listed]).encode()).hexdigest()

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """InputError, naming the file: it cannot be read, or the mask is not of the image's size, or not one of these
        classes.
        """
        file, mask = self._files[index]
        image = torch.from_numpy(np.array(decode(file, f"image {str(file)!r}"))).permute(2, 0, 1)
        labels = self._read_labels(mask)
        if labels.shape != image.shape[1:]:
            size, expected = (f"{shape[1]}x{shape[0]}" for shape in (labels.shape, image.shape[1:]))
            raise InputError(
                f"mask {str(mask)!r} is {size}, but its image is {expected}",
                "an image counts as it is to be seen, turned as its EXIF data say: the mask must be turned as well",
            )
        return image, labels


class Part(Subset):
    """Some images of a set."""

    def __init__(self, whole: SegmentationSet, indices: Tensor) -> None:
        """indices: int64 (k,)."""
        super().__init__(whole, indices)
        self.palette: tuple[Colour, ...] = whole.palette
        self.in_memory: bool = whole.in_memory

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.whole.pair(int(self.indices[index]))
        return image, labels


def palette(count: int) -> tuple[Colour, ...]:
    """Colours that are far from each other: the first black, as for a background, the others around the circle."""
    golden = (5**0.5 - 1) / 2
    colours = [(0, 0, 0)]
    for index in range(count - 1):
        parts = colorsys.hsv_to_rgb(index * golden % 1, 0.75, 0.95 - 0.25 * (index % 2))
        colours.append((round(255 * parts[0]), round(255 * parts[1]), round(255 * parts[2])))
    return tuple(colours[:count])
