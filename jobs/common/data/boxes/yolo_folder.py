"""A folder of images with boxes in the format of YOLO.

<root>/data.yaml                   `names` of the classes; may say where `train` and `val` or `test` are
<root>/images/train/*              images                     or train/images
<root>/labels/train/*.txt          their boxes, one a line    or train/labels
A line is a class and the middle, width and height of a box, as parts of the image's width and height; or a class and
the corners of a polygon, around which the box is. An image without a file of boxes shows nothing.
"""

from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml

from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.squares import Photograph, SquareFiles, inside, left_out, seen_size
from jobs.common.data.image_files import hidden
from jobs.common.data.sets import Split
from service.errors import InputError

SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("val", "valid", "test")}
MOST_TEXT = 1 << 22  # bytes of data.yaml, and of the boxes of an image
MOST_BOXES = 10_000  # of an image
MOST_CLASSES = 10_000


def yolo_folder(split: Split, source: Source) -> SquareFiles:
    """The images of a split. InputError, one sentence, if something is not as it has to be."""
    if source.root is None:
        raise InputError("yolo_folder needs root, the folder that holds data.yaml")
    settings = _settings(source.folder)
    classes = _names(settings.get("names"))
    images = _images(source.folder, split, settings)
    parts = list(images.relative_to(source.folder).parts)
    last = len(parts) - 1 - parts[::-1].index("images")
    labels = source.folder.joinpath(*parts[:last], "labels", *parts[last + 1 :])
    photographs, dropped = [], 0
    for file in sorted(images.iterdir()):
        if not file.is_file() or hidden(file.name):
            continue
        height, width = seen_size(file)
        corners, numbers = _boxes(labels / f"{file.stem}.txt", len(classes))
        scaled = torch.tensor(corners).reshape(-1, 4) * torch.tensor([width, height] * 2)
        boxes, count = inside(scaled, torch.tensor(numbers, dtype=torch.int64), (height, width))
        photographs.append(Photograph(file, height, width, boxes))
        dropped += count
    return SquareFiles("yolo_folder", classes, photographs, source, left_out(dropped))


def _settings(root: Path) -> dict[str, Any]:
    file = root / "data.yaml"
    try:
        settings = yaml.safe_load(_text(file))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"yolo_folder: {str(file)!r} is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(settings, dict):
        raise InputError(f"yolo_folder: {str(file)!r} must have names, those of the classes")
    return settings


def _names(names: Any) -> list[str]:
    """Names of the classes by label: a list, or a table from 0 on."""
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise InputError("yolo_folder: names in data.yaml must have the numbers from 0 on, without a gap")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_CLASSES:
        raise InputError(f"yolo_folder: names in data.yaml must be a list of 1 to {MOST_CLASSES:,} classes")
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise InputError("yolo_folder: names in data.yaml must be texts, none twice")
    return names


def _images(root: Path, split: Split, settings: dict[str, Any]) -> Path:
    """The folder of images: where data.yaml says, else where it usually is."""
    for name in SPLITS[split]:
        given = settings.get(name)
        if given is not None:
            path = PurePosixPath(given) if isinstance(given, str) else None
            if path is None or path.is_absolute() or ".." in path.parts or "images" not in path.parts:
                raise InputError(
                    f"yolo_folder: {name} in data.yaml must be a folder below root with `images` in its path; it is "
                    f"{str(given)[:80]!r}"
                )
            if not (root / path).is_dir():
                raise InputError(f"yolo_folder: there is no folder {str(root / path)!r}, which data.yaml names")
            return root / path
        for folder in (root / "images" / name, root / name / "images"):
            if folder.is_dir():
                return folder
    usual = " or ".join(f"images/{name}" for name in SPLITS[split])
    raise InputError(f"yolo_folder: {str(root)!r} has no folder {usual}")


def _boxes(file: Path, classes: int) -> tuple[list[list[float]], list[int]]:
    """Left, top, right, bottom of each box, as parts of the width and height, and its label."""
    corners: list[list[float]] = []
    labels: list[int] = []
    if not file.exists():
        return corners, labels
    lines = [line for line in _text(file).splitlines() if line.strip()]
    if len(lines) > MOST_BOXES:
        raise InputError(f"yolo_folder: {str(file)!r} must have at most {MOST_BOXES:,} lines; it has {len(lines):,}")
    for number, line in enumerate(lines, 1):
        try:
            label, *sides = (float(part) for part in line.split())
        except ValueError as error:
            raise InputError(f"yolo_folder: line {number} of {str(file)!r} must be of numbers") from error
        if not (0 <= label < classes and label == int(label)):
            raise InputError(
                f"yolo_folder: line {number} of {str(file)!r} must begin with a class from 0 to {classes - 1}; it "
                f"begins with {label:g}"
            )
        if len(sides) == 4:
            across, down, width, height = sides
            corners.append([across - width / 2, down - height / 2, across + width / 2, down + height / 2])
        elif len(sides) >= 6 and len(sides) % 2 == 0:
            corners.append([min(sides[::2]), min(sides[1::2]), max(sides[::2]), max(sides[1::2])])
        else:
            raise InputError(
                f"yolo_folder: line {number} of {str(file)!r} must have a class and four numbers, or a polygon"
            )
        labels.append(int(label))
    return corners, labels


def _text(file: Path) -> str:
    try:
        if (size := file.stat().st_size) > MOST_TEXT:
            raise InputError(f"yolo_folder: {str(file)!r} must have at most {MOST_TEXT:,} bytes; it has {size:,}")
        return file.read_bytes().decode()
    except OSError as error:
        raise InputError(f"yolo_folder: {str(file)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"yolo_folder: {str(file)!r} is no text") from error
