"""What a labelled set of images is, and the two forms that fit all sources: pixels in memory, and a part of a set."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.params import StudyParams
from service.errors import InputError

Split = Literal["train", "test"]


class ImageSet(Protocol):
    """Images of one shape, each with a class."""

    name: str
    classes: tuple[str, ...]
    """names, by label"""
    shape: tuple[int, int, int]
    """channels, height and width of an image"""
    labels: Tensor
    """int64 (n,), in 0..len(classes)-1"""

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str:
        """Tells the content from any other: for provenance."""

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images at int64 (k,) indices: float32 (k, channels, height, width) in [0, 1].

        generator: draws random crops, as for training, where the images are larger than `shape` says; None cuts them
        at the centre. A set whose images have the shape already needs none.
        """


def default_folder() -> Path:
    """Where data on disk are: ASSAY_DATA, else `.data` below the current folder."""
    return Path(os.environ.get("ASSAY_DATA", ".data"))


class Source(StudyParams):
    """Where a data set lies."""

    root: str | None = Field(None, description="folder of a set that lies on disk; none: ASSAY_DATA, else .data here")
    download: bool = Field(False, description="fetch a set that is not there, if torchvision knows where it is")
    image_size: int = Field(224, ge=8, le=1024, description="side that the images of a folder are cut to, in pixels")

    @property
    def folder(self) -> Path:
        return default_folder() if self.root is None else Path(self.root).expanduser()


class Pixels:
    """A set that fits into memory."""

    def __init__(self, name: str, classes: Sequence[str], pixels: Tensor, labels: Tensor, white: int = 255) -> None:
        """pixels: uint8 (n, channels, height, width), 0..white. labels: int64 (n,)."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or len(pixels) != len(labels) or not len(labels):
            raise InputError(f"{name}: {len(labels)} labels for pixels of {pixels.dtype} {tuple(pixels.shape)}")
        if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
            found = f"{int(labels.min())} to {int(labels.max())}"
            raise InputError(f"{name}: labels from {found} are not allowed, 0 to {len(classes) - 1} are")
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


class Part:
    """Some images of a set."""

    def __init__(self, whole: ImageSet, indices: Tensor) -> None:
        """indices: int64 (k,)."""
        self.name, self.classes, self.shape = whole.name, whole.classes, whole.shape
        self.labels = whole.labels[indices]
        self._whole, self._indices = whole, indices

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(self._whole.digest.encode())
        digest.update(self._indices.contiguous().numpy().data)
        return digest.hexdigest()

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._whole.images(self._indices[indices], generator)


def packaged(package: str, module: str, path: str, data_set: str) -> Path:
    """A file inside an installed package. InputError, saying what to install, if it is not there.

    package: what pip calls it; module: what Python calls it; path: of the file below the module.
    """
    spec = find_spec(module)
    # a package of packages, as mpl_toolkits is, has folders but no file of its own
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise InputError(f"{data_set} needs the package {package}", hint=f"pip install {package}")
    file = Path(folders[0]) / path
    if not file.is_file():
        raise InputError(f"{data_set}: the installed package {package} does not hold {path}")
    return file
