"""Street View House Numbers from their MATLAB files. Source: Netzer et al. 2011."""

import numpy as np
import torch
from scipy.io import loadmat
from torchvision import datasets
from torchvision.datasets.utils import download_url

from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.sets import Split
from service.errors import InputError

CLASSES = tuple("0123456789")


def svhn(split: Split, source: Source) -> Pixels:
    """73,257 and 26,032 colour images of 32x32: digits on houses. The files say 10 for the digit 0."""
    return _load("svhn", split, source)


def svhn_extra(split: Split, source: Source) -> Pixels:
    """531,131 easier images to train with, from a file of their own; those to test are those of svhn."""
    return _load("svhn_extra", "extra" if split == "train" else split, source)


def _load(data_set: str, part: str, source: Source) -> Pixels:
    """part: of the published files."""
    url, name, md5 = datasets.SVHN.split_list[part]
    file = source.folder / name
    if not file.is_file() and source.download:
        try:
            download_url(url, source.folder, name, md5)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{data_set} cannot be downloaded to {str(source.folder)!r}: {error}") from error
    if not file.is_file():
        raise InputError(f"{data_set}: no {name} in {str(source.folder)!r}", hint="put it there, or set download: true")
    try:
        content = loadmat(file, variable_names=("X", "y"))
        pixels, labels = content["X"], content["y"].ravel()
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise InputError(f"{str(file)!r} is not a MATLAB file of SVHN: {error}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(labels)):
        raise InputError(f"{str(file)!r}: X is {pixels.dtype} {pixels.shape}, and y has {len(labels)} labels")
    if labels.dtype.kind not in "ui" or labels.min() < 1 or labels.max() > 10:
        raise InputError(f"{str(file)!r}: the labels are not digits from 1 to 10")
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))  # (n, channels, height, width)
    return Pixels(data_set, CLASSES, images, torch.from_numpy(labels.astype(np.int64) % 10))
