"""CIFAR-10 and CIFAR-100 from their published python batches. Source: Krizhevsky 2009, "Learning Multiple Layers of
Features from Tiny Images".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import download_and_extract_archive

from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.plain_pickle import read_pickle
from jobs.common.data.sets import Split
from service.errors import InputError

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class _Published:
    """How one of the two sets is laid out in files and keys."""

    name: str
    archive: type[datasets.CIFAR10]
    files: dict[Split, tuple[str, ...]]
    labels: str
    meta: str
    class_names: str

    def find(self, root: Path) -> Path | None:
        """The folder that the batches are in: torchvision's below the root, or the root itself."""
        folders = (root / self.archive.base_folder, root)
        return next((folder for folder in folders if (folder / self.meta).is_file()), None)

    def download(self, root: Path) -> None:
        archive = self.archive
        try:
            download_and_extract_archive(archive.url, root, filename=archive.filename, md5=archive.tgz_md5)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{self.name} cannot be downloaded to {str(root)!r}: {error}") from error


_TEN = _Published(
    name="cifar10",
    archive=datasets.CIFAR10,
    files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
    labels="labels",
    meta="batches.meta",
    class_names="label_names",
)
_HUNDRED = _Published(
    name="cifar100",
    archive=datasets.CIFAR100,
    files={"train": ("train",), "test": ("test",)},
    labels="fine_labels",
    meta="meta",
    class_names="fine_label_names",
)


def cifar10(split: Split, source: Source) -> Pixels:
    """50,000 and 10,000 colour images of 32x32 in 10 classes."""
    return _load(_TEN, split, source)


def cifar100(split: Split, source: Source) -> Pixels:
    """50,000 and 10,000 colour images of 32x32 in 100 classes, the fine ones."""
    return _load(_HUNDRED, split, source)


def _load(published: _Published, split: Split, source: Source) -> Pixels:
    folder = published.find(source.folder)
    if folder is None and source.download:
        published.download(source.folder)
        folder = published.find(source.folder)
    if folder is None:
        hint = f"unpack {published.archive.filename} there, or set download: true"
        raise InputError(f"{published.name} is not in {str(source.folder)!r}", hint=hint)
    meta = folder / published.meta
    classes = [_text(each) for each in _list(meta, _entry(meta, published.class_names))]
    batches = [_batch(folder / file, published.labels) for file in published.files[split]]
    pixels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return Pixels(published.name, classes, pixels, labels)


def _batch(file: Path, labels_key: str) -> tuple[Tensor, Tensor]:
    """Pixels uint8 (n, 3, 32, 32) and labels int64 (n,) of one file."""
    pixels, labels = _entry(file, "data", labels_key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape != (len(_list(file, labels)), int(np.prod(SHAPE)))
    ):
        raise InputError(f"{str(file)!r}: its 'data' are not one row of {np.prod(SHAPE)} bytes for each label")
    if not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise InputError(f"{str(file)!r}: its {labels_key!r} are not small whole numbers")
    return torch.from_numpy(pixels.copy()).view(-1, *SHAPE), torch.tensor(labels, dtype=torch.int64)


def _entry(file: Path, *keys: str) -> Any:
    """What the file says under one key, or a list of what it says under several."""
    content = read_pickle(file)
    if not isinstance(content, dict):
        raise InputError(f"{str(file)!r} is not a batch of CIFAR: it holds a {type(content).__name__}")
    # the published files were written by Python 2, whose strings are bytes
    entries = {_text(key): value for key, value in content.items()}
    if missing := [key for key in keys if key not in entries]:
        raise InputError(f"{str(file)!r} is not a batch of CIFAR: it has no {missing[0]!r}")
    return entries[keys[0]] if len(keys) == 1 else [entries[key] for key in keys]


def _list(file: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{str(file)!r} is not a batch of CIFAR: a list is a {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
