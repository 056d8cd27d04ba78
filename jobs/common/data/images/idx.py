"""MNIST and Fashion-MNIST from their idx files: a magic number, the sizes as big-endian words, then the bytes.

The files may be gzipped, and lie in torchvision's folder, in the folder itself, or where `make data` unpacks
Fashion-MNIST. Source of the format: LeCun, Cortes & Burges, "The MNIST database".
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
from torchvision import datasets

from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.sets import Split
from service.errors import InputError

UNSIGNED_BYTE = 8
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
UNPACKED = "usr/share/datasets/fashion-mnist"  # where `make data` puts Fashion-MNIST
LARGEST = 1 << 30  # bytes
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGITS = tuple("0123456789")


def mnist(split: Split, source: Source) -> Pixels:
    """Handwritten digits, 60,000 and 10,000 of 28x28. Source: LeCun et al. 1998."""
    return _load("mnist", DIGITS, split, source, source.folder / "MNIST/raw", datasets.MNIST)


def fashion_mnist(split: Split, source: Source) -> Pixels:
    """Pictures of clothes, 60,000 and 10,000 of 28x28. Source: Xiao, Rasul & Vollgraf 2017."""
    folder, unpacked = source.folder / "FashionMNIST/raw", source.folder / UNPACKED
    return _load("fashion_mnist", CLOTHES, split, source, folder, datasets.FashionMNIST, unpacked)


def _load(
    name: str, classes: tuple[str, ...], split: Split, source: Source, folder: Path, torchvision: type, *others: Path
) -> Pixels:
    files = [_find((folder, source.folder, *others), file) for file in FILES[split]]
    if None in files and source.download:
        try:
            torchvision(source.folder, download=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{name} cannot be downloaded to {str(source.folder)!r}: {error}") from error
        files = [_find((folder,), file) for file in FILES[split]]
    images, labels = files
    if images is None or labels is None:
        hint = f"put {' and '.join(FILES[split])} there, with or without .gz, or set download: true"
        make = ", or run `make data`" if others else ""
        raise InputError(f"{name}: no files in {str(source.folder)!r}", hint=hint + make)
    pixels = read_idx(images, dimensions=3)
    return Pixels(name, classes, torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(read_idx(labels, 1)).long())


def _find(folders: tuple[Path, ...], name: str) -> Path | None:
    files = [folder / f"{name}{ending}" for folder in folders for ending in ("", ".gz")]
    return next((file for file in files if file.is_file()), None)


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """The bytes of an idx file: uint8 with that many dimensions. InputError, naming the file, if it is damaged.

    No more is read than the sizes in the file's head call for, and these are bounded.
    """
    try:
        with _open(file) as stream:
            return _parse(stream, dimensions)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{str(file)!r} is not a file of idx data: {error}") from error


def _open(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _parse(stream: IO[bytes], dimensions: int) -> np.ndarray:
    head = stream.read(4 + 4 * dimensions)
    if len(head) != 4 + 4 * dimensions or head[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
        raise ValueError(f"it does not begin as unsigned bytes in {dimensions} dimensions do")
    shape = tuple(int(size) for size in np.frombuffer(head[4:], ">u4"))
    length = math.prod(shape)
    if length > LARGEST:
        raise ValueError(f"it says that it holds {length:,} bytes, at most {LARGEST:,} are allowed")
    body = stream.read(length + 1)
    if len(body) != length:
        raise ValueError(
            f"it says that it holds {length:,} bytes, and holds {'fewer' if len(body) < length else 'more'}"
        )
    return np.frombuffer(bytearray(body), np.uint8).reshape(shape)
