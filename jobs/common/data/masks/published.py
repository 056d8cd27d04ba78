"""PASCAL VOC 2012, with the annotations of SBD if they are there, and Cityscapes, from a folder on disk.

torchvision's loaders know where their files are; nothing is downloaded.
"""

from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
import torch
from torch import Tensor
from torchvision import datasets

from jobs.common.data.image_files import hidden
from jobs.common.data.masks.base import Files, Source
from jobs.common.data.masks.mask_files import as_labels, read_mask
from jobs.common.data.sets import Split
from jobs.common.metrics.segmentation import IGNORE
from service.errors import InputError

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
SBD = "benchmark_RELEASE/dataset"  # where its archive is unpacked to; torchvision moves it to the root of its own
VOC_SPLITS: dict[Split, str] = {"train": "train", "test": "val"}
CITYSCAPES_SPLITS: dict[Split, str] = {"train": "train", "test": "val"}


def voc_palette() -> tuple[tuple[int, int, int], ...]:
    """The colours that VOC gives its classes: the bits of a label, dealt out to red, green and blue from the top.

    Source: Everingham et al. 2012, development kit, VOClabelcolormap.
    """

    def part(label: int, first: int) -> int:
        return sum(((label >> (3 * bit + first)) & 1) << (7 - bit) for bit in range(3))

    return tuple((part(label, 0), part(label, 1), part(label, 2)) for label in range(len(VOC_CLASSES)))


def voc2012(split: Split, source: Source) -> Files:
    """`root` holds VOCdevkit/VOC2012: 1,464 images to train, 1,449 (its val) to test.

    If benchmark_RELEASE/dataset or sbd is there as well, all that SBD annotates and that is not in val is trained on:
    10,582 images, as usual. Sources: Everingham et al. 2015; Hariharan et al. 2011.
    """
    try:
        published = datasets.VOCSegmentation(str(source.folder), year="2012", image_set=VOC_SPLITS[split])
        files = [(Path(image), Path(mask)) for image, mask in zip(published.images, published.masks, strict=True)]
        if split == "train":
            held = set((Path(published.images[0]).parents[1] / "ImageSets/Segmentation/val.txt").read_text().split())
            files += _sbd(source.folder, {image.stem for image, _ in files} | held)
    except (RuntimeError, OSError, IndexError) as error:
        reason = str(error).split(". ")[0]
        raise InputError(f"voc2012: {str(source.folder)!r} does not hold VOCdevkit/VOC2012: {reason}") from error
    return Files("voc2012", VOC_CLASSES, voc_palette(), files, _read_voc)


def cityscapes(split: Split, source: Source) -> Files:
    """`root` holds leftImg8bit and gtFine: 2,975 street scenes to train, 500 (its val) to test, 19 classes.

    Source: Cordts et al. 2016.
    """
    try:
        published = datasets.Cityscapes(str(source.folder), CITYSCAPES_SPLITS[split], "fine", "semantic")
    except (RuntimeError, OSError) as error:
        reason = str(error).split(". ")[0]
        raise InputError(f"cityscapes: {str(source.folder)!r} does not hold the data set: {reason}") from error
    counted = sorted(
        (each for each in published.classes if 0 <= each.train_id < IGNORE), key=lambda each: each.train_id
    )
    table = np.full(256, IGNORE, np.uint8)
    for each in counted:
        table[each.id] = each.train_id
    pairs = zip(map(Path, published.images), (Path(targets[0]) for targets in published.targets), strict=True)
    files = sorted(pair for pair in pairs if not hidden(pair[0].name))  # torchvision has the order of the disk
    names, colours = [each.name for each in counted], [each.color for each in counted]
    return Files("cityscapes", names, colours, files, partial(_read_cityscapes, torch.from_numpy(table)))


def _sbd(root: Path, others: set[str]) -> list[tuple[Path, Path]]:
    """What SBD adds to the images whose names are given; nothing if it is not there."""
    folder = next((each for each in (root / SBD, root / "sbd") if (each / "cls").is_dir()), None)
    if folder is None:
        return []
    names = [name for split in ("train", "val") for name in (folder / f"{split}.txt").read_text().split()]
    return [(folder / f"img/{name}.jpg", folder / f"cls/{name}.mat") for name in names if name not in others]


def _read_voc(file: Path) -> Tensor:
    if file.suffix != ".mat":
        return read_mask(file, len(VOC_CLASSES))
    try:
        labels = scipy.io.loadmat(str(file))["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # damaged files make the reader raise almost anything
        raise InputError(f"mask {str(file)!r} cannot be read: {error}") from error
    return as_labels(np.asarray(labels), len(VOC_CLASSES), f"mask {str(file)!r}")


def _read_cityscapes(table: Tensor, file: Path) -> Tensor:
    return table[read_mask(file, IGNORE).long()]
