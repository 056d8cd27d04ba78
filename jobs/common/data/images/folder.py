"""Folders of images, one folder a class, decoded when they are asked for.

    <root>/train/<class>/*  <root>/val/<class>/*      or test in place of val

The label of a class is its place among the folders of train, by name, in both splits; without a folder train it is the
place in the split itself. Hidden files and folders do not count.

ImageNet is such a folder. For evaluation the shorter side is resized to 256/224 of the size that is asked for and the
centre is cut out; for training a random part is resized (Szegedy et al. 2015, section 6; torchvision's defaults).
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from jobs.common.data.image_files import centre, decode, hidden
from jobs.common.data.images.base import ImageSet, Source
from jobs.common.data.images.relabelled import with_classes
from jobs.common.data.sets import Split
from service.errors import InputError

FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("val", "test")}
MARGIN = 256 / 224  # the shorter side that an image is resized to before its centre is cut out, in units of the centre
AREAS, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random part: share of the image's area, width by height
TRIES = 10
THREADS = 8

Box = tuple[float, float, float, float]  # left, top, right, bottom


class _Listing(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """torchvision's, without what is hidden."""

    def __init__(self, folder: Path) -> None:
        def counts(file: str) -> bool:
            return is_image_file(file) and not any(map(hidden, Path(file).relative_to(folder).parts))

        super().__init__(str(folder), is_valid_file=counts)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = class_names(Path(directory))
        if not names:
            raise FileNotFoundError(f"there is no folder in {str(directory)!r}")
        return names, {name: label for label, name in enumerate(names)}


def class_names(folder: Path) -> list[str]:
    """The folders inside a folder, by name, without hidden ones. OSError if it is not there."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not hidden(entry.name))


class Folder:
    """Images on disk. All files are decoded anew whenever they are asked for."""

    def __init__(self, name: str, folder: Path, size: int) -> None:
        """folder: holds one folder a class. size: side of the square images. InputError if there are none."""
        try:
            listing = _Listing(folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            reason = str(error).split(". ")[0]
            raise InputError(f"{name}: {str(folder)!r} does not hold folders of images: {reason}") from error
        self.name, self.classes = name, tuple(listing.classes)
        self.shape: tuple[int, int, int] = (3, size, size)
        self.resize: int | None = round(MARGIN * size)
        self.labels = torch.tensor(listing.targets, dtype=torch.int64)
        self._folder, self._files, self._size = folder, [Path(file) for file, _ in listing.samples], size

    def __len__(self) -> int:
        return len(self._files)

    @cached_property
    def digest(self) -> str:
        """Of the names and sizes of all files, not of their bytes: reading all of ImageNet takes longer than a run."""
        files = [(str(file.relative_to(self._folder)), file.stat().st_size) for file in self._files]
        return hashlib.sha256(json.dumps([self._size, files]).encode()).hexdigest()

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Decoded by several threads; the draws are made before, so that their order does not matter.

        InputError, naming the file, if one cannot be read.
        """
        files = [self._files[index] for index in indices.tolist()]
        draws = [None] * len(files) if generator is None else torch.rand(len(files), TRIES + 1, 2, generator=generator)
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            images = list(pool.map(self._image, files, draws))
        return torch.stack(images) if images else torch.empty(0, *self.shape)

    def _image(self, file: Path, draws: Tensor | None) -> Tensor:
        image = decode(file, f"image {str(file)!r}")
        size = self._size
        if draws is None:
            cut = centre(image, size, size, self.resize)
        else:
            cut = image.resize((size, size), Image.Resampling.BILINEAR, part(image.size, draws.tolist()))
        return torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 255


def image_folder(split: Split, source: Source) -> ImageSet:
    """Folders of images of the user's own, in `root`."""
    return _open("image_folder", split, source)


def imagenet(split: Split, source: Source) -> ImageSet:
    """ImageNet (Russakovsky et al. 2015) in `root`: train/<class>/*.JPEG and val/<class>/*.JPEG."""
    return _open("imagenet", split, source)


def _open(name: str, split: Split, source: Source) -> ImageSet:
    if source.root is None:
        raise InputError(f"{name} needs root, the folder that holds train/<class>/ and val/<class>/")
    train, folder = _of_split(source.folder, "train"), _of_split(source.folder, split)
    images = Folder(name, folder, source.image_size)
    if not train.is_dir():
        return images
    return with_classes(images, class_names(train), f"{name} in {str(folder)!r}", f"{str(train)!r}")


def _of_split(root: Path, split: Split) -> Path:
    """The folder of a split, the first that is there."""
    folders = [root / folder for folder in FOLDERS[split]]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def part(size: tuple[int, int], draws: Sequence[Sequence[float]]) -> Box:
    """A random part: of a random area and ratio that fits, at a random place.

    draws: uniform in [0, 1), a pair for the place and then one for the area and ratio of each try. If no try fits, the
    largest part in the middle with a ratio that is allowed.
    """
    width, height = size
    (across, down), *tries = draws
    for area, ratio in tries:
        area = width * height * (AREAS[0] + area * (AREAS[1] - AREAS[0]))
        ratio = math.exp(math.log(RATIOS[0]) + ratio * math.log(RATIOS[1] / RATIOS[0]))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = across * (width - wide), down * (height - high)
            return left, top, left + wide, top + high
    wide, high = min(width, height * RATIOS[1]), min(height, width / RATIOS[0])
    return (width - wide) / 2, (height - high) / 2, (width + wide) / 2, (height + high) / 2
