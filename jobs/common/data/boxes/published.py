"""COCO 2017, PASCAL VOC 2007 and 2012, and the persons of INRIA, from a folder on disk; nothing is downloaded."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import torch

from jobs.common.data.boxes import coco_folder
from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.squares import Photograph, SquareFiles, inside, left_out
from jobs.common.data.sets import Split
from service.errors import InputError

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOC_LISTS: dict[int, dict[Split, str]] = {
    2007: {"train": "trainval", "test": "test"},
    2012: {"train": "train", "test": "val"},  # boxes of its test are not published
}
COCO_FOLDERS: dict[Split, str] = {"train": "train2017", "test": "val2017"}
INRIA_FOLDERS: dict[Split, str] = {"train": "Train", "test": "Test"}
MOST_TEXT = 1 << 20  # bytes of the boxes of an image
LONGEST = 100_000  # pixels of a side
Corners = tuple[float, float, float, float]


def coco2017(split: Split, source: Source) -> SquareFiles:
    """`root` holds annotations/instances_train2017.json, train2017 and val2017: 118,287 images, and 5,000 to test.

    Source: Lin et al. 2014 (cocodataset.org).
    """
    name = COCO_FOLDERS[split]
    text = source.folder / f"annotations/instances_{name}.json"
    if not text.is_file() or not (source.folder / name).is_dir():
        raise _absent("coco2017", source, f"annotations/{text.name} and {name}", "cocodataset.org, 2017")
    return coco_folder.read("coco2017", text, source.folder / name, source)


def voc2007(split: Split, source: Source) -> SquareFiles:
    """`root` holds VOCdevkit/VOC2007: 5,011 images to train, 4,952 to test. Source: Everingham et al. 2010."""
    return _voc(2007, split, source)


def voc2012(split: Split, source: Source) -> SquareFiles:
    """`root` holds VOCdevkit/VOC2012: 5,717 images to train, 5,823 (val) to test. Source: Everingham et al. 2015."""
    return _voc(2012, split, source)


def inria(split: Split, source: Source) -> SquareFiles:
    """`root` holds INRIAPerson: 614 images with persons to train, 288 to test. Source: Dalal & Triggs 2005."""
    root = source.folder / "INRIAPerson"
    annotations = root / INRIA_FOLDERS[split] / "annotations"
    files = sorted(annotations.glob("*.txt"))
    if not files:
        raise _absent("inria", source, f"INRIAPerson/{INRIA_FOLDERS[split]}/annotations", "the authors of INRIA Person")
    photographs, dropped = [], 0
    for file in files:
        photograph, count = _inria_photograph(file, root)
        photographs.append(photograph)
        dropped += count
    return SquareFiles("inria", ("person",), photographs, source, left_out(dropped))


def _voc(year: int, split: Split, source: Source) -> SquareFiles:
    """Objects that are marked as difficult are there as all others are."""
    folder = source.folder / f"VOCdevkit/VOC{year}"
    listed = folder / f"ImageSets/Main/{VOC_LISTS[year][split]}.txt"
    if not listed.is_file():
        raise _absent(f"voc{year}", source, f"VOCdevkit/VOC{year} with {listed.name}", "the PASCAL VOC challenges")
    photographs, dropped = [], 0
    for name in listed.read_text(errors="replace").split():
        if not re.fullmatch(r"\w+", name):
            raise InputError(f"voc{year}: {str(listed)!r} must list names of images; one is {name[:80]!r}")
        photograph, count = _voc_photograph(folder / f"Annotations/{name}.xml", folder / f"JPEGImages/{name}.jpg")
        photographs.append(photograph)
        dropped += count
    return SquareFiles(f"voc{year}", VOC_CLASSES, photographs, source, left_out(dropped))


def _voc_photograph(annotation: Path, image: Path) -> tuple[Photograph, int]:
    """Source: Everingham et al. 2012, development kit: pixels are counted from 1, and the last one is inside."""
    text = _text(annotation)
    if "<!" in text:
        raise InputError(f"{str(annotation)!r} must have no declarations of XML")
    try:
        root = ElementTree.fromstring(text)
        height, width = (_side(root.findtext(f"size/{name}")) for name in ("height", "width"))
        corners, labels = [], []
        for each in root.findall("object"):
            left, top, right, bottom = (
                float(each.findtext(f"bndbox/{name}") or "none") for name in ("xmin", "ymin", "xmax", "ymax")
            )
            corners.append((left - 1, top - 1, right, bottom))
            labels.append(VOC_CLASSES.index(each.findtext("name") or ""))
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{str(annotation)!r} is no annotation of VOC: {error}") from error
    return _photograph(image, height, width, corners, labels)


def _inria_photograph(annotation: Path, root: Path) -> tuple[Photograph, int]:
    text = _text(annotation)
    image = re.search(r'^Image filename : "([\w./-]+)"', text, re.M)
    size = re.search(r"^Image size \(X x Y x C\) : (\d{1,6}) x (\d{1,6}) x \d+", text, re.M)
    if image is None or size is None or ".." in image[1] or image[1].startswith("/"):
        raise InputError(f"{str(annotation)!r} is no annotation of INRIA: it must have an image and its size")
    number = r"\((-?\d{1,6}), (-?\d{1,6})\)"
    corners = [
        (float(left), float(top), float(right), float(bottom))
        for left, top, right, bottom in re.findall(rf"\(Xmin, Ymin\) - \(Xmax, Ymax\) : {number} - {number}", text)
    ]
    try:
        height, width = _side(size[2]), _side(size[1])
    except ValueError as error:
        raise InputError(f"{str(annotation)!r} is no annotation of INRIA: {error}") from error
    return _photograph(root / image[1], height, width, corners, [0] * len(corners))


def _photograph(
    image: Path, height: int, width: int, corners: Sequence[Corners], labels: Sequence[int]
) -> tuple[Photograph, int]:
    """With its boxes, and how many were left out. InputError if it is not there."""
    if not image.is_file():
        raise InputError(f"there is no image {str(image)!r}")
    table = torch.tensor(corners).reshape(-1, 4)
    boxes, dropped = inside(table, torch.tensor(labels, dtype=torch.int64), (height, width))
    return Photograph(image, height, width, boxes), dropped


def _side(text: str | None) -> int:
    """ValueError if it is no length of a side."""
    side = int(text or "none")
    if not 1 <= side <= LONGEST:
        raise ValueError(f"a side must have 1 to {LONGEST:,} pixels; it has {side}")
    return side


def _text(file: Path) -> str:
    try:
        if (size := file.stat().st_size) > MOST_TEXT:
            raise InputError(f"{str(file)!r} must have at most {MOST_TEXT:,} bytes; it has {size:,}")
        return file.read_bytes().decode("latin-1")
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from error


def _absent(name: str, source: Source, parts: str, where: str) -> InputError:
    return InputError(
        f"{name}: {str(source.folder)!r} does not hold {parts}",
        hint=f"it is had from {where}; data.root names the folder that it is unpacked in",
    )
