"""A folder of images with boxes in the format of COCO.

<root>/annotations/instances_train*.json   <root>/train*/     as COCO itself has them: the json and the images' folder
                                                              end alike
<root>/train/*.json                        <root>/train/*     as many tools export them: one json beside the images
val, valid or test in place of train
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import torch

from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.squares import Photograph, SquareFiles, inside, left_out
from jobs.common.data.image_files import hidden
from jobs.common.data.sets import Split
from service.errors import InputError

FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("val", "valid", "test")}
MOST_TEXT = 1 << 30  # bytes of a json: that of COCO to train has 449 million
MOST_CLASSES = 10_000
LONGEST = 100_000  # pixels of a side


def coco_folder(split: Split, source: Source) -> SquareFiles:
    """The images of a split that the json lists, with all boxes but those of crowds. InputError."""
    if source.root is None:
        raise InputError("coco_folder needs root, the folder that holds annotations, or train and val")
    text, folder = _places(source.folder, split)
    return read("coco_folder", text, folder, source)


def read(name: str, text: Path, folder: Path, source: Source) -> SquareFiles:
    """text: the json. folder: of the images. InputError, one sentence, if something in them is not as it has to be."""
    where = f"{name}: {str(text)!r}"
    content = _content(text, where)
    classes, labels = _classes(content["categories"], where)
    listed = {}
    for place, each in enumerate(_objects(content["images"], f"image {{}} of {where}")):
        what = f"image {place} of {where}"
        listed[_key(each, "id", what)] = _Listed.of(each, folder, what)
    if len(listed) != len(content["images"]):
        raise InputError(f"images of {where} must have ids of their own; some share one")
    crowds = 0
    for place, box in enumerate(_objects(content["annotations"], f"annotation {{}} of {where}")):
        what = f"annotation {place} of {where}"
        image, label = listed.get(_key(box, "image_id", what)), labels.get(_key(box, "category_id", what))
        if image is None or label is None:
            raise InputError(f"{what} must name an image and a category that are listed")
        if box.get("iscrowd") == 1:
            crowds += 1
            continue
        image.corners.append(_corners(box.get("bbox"), what))
        image.labels.append(label)
    photographs, dropped = _photographs(listed.values())
    remarks = left_out(dropped) + left_out(crowds, "of crowds")
    return SquareFiles(name, classes, photographs, source, remarks)


@dataclass
class _Listed:
    """An image of the json, and its boxes as far as they have been read."""

    file: Path
    height: int
    width: int
    corners: list[tuple[float, float, float, float]]
    labels: list[int]

    @staticmethod
    def of(image: Mapping[str, Any], folder: Path, what: str) -> "_Listed":
        name, height, width = image.get("file_name"), image.get("height"), image.get("width")
        if not isinstance(name, str) or not _is_below(name):
            raise InputError(f"{what} must have a file_name below the folder of images; it is {name!r}")
        if not _is_side(height) or not _is_side(width):
            raise InputError(
                f"{what} must have a height and a width of 1 to {LONGEST:,}; they are {height} and {width}"
            )
        file = folder / name
        if not file.is_file():
            raise InputError(f"{what} is not there: {str(file)!r}")
        return _Listed(file, height, width, [], [])


def _photographs(listed: Iterable[_Listed]) -> tuple[list[Photograph], int]:
    """The images with their boxes, and how many boxes were left out."""
    photographs, dropped = [], 0
    for each in listed:
        corners, labels = torch.tensor(each.corners).reshape(-1, 4), torch.tensor(each.labels, dtype=torch.int64)
        boxes, count = inside(corners, labels, (each.height, each.width))
        photographs.append(Photograph(each.file, each.height, each.width, boxes))
        dropped += count
    return photographs, dropped


def _places(root: Path, split: Split) -> tuple[Path, Path]:
    """The json of a split, and the folder of its images. InputError if there are none, or several."""
    for name in FOLDERS[split]:
        texts = sorted((root / "annotations").glob(f"instances_{name}*.json"))
        if len(texts) > 1:
            raise InputError(
                f"coco_folder: {str(root)!r} must have one annotations/instances_{name}*.json; it has more"
            )
        if texts:
            return texts[0], root / texts[0].stem.removeprefix("instances_")
        beside = [file for file in sorted((root / name).glob("*.json")) if not hidden(file.name)]
        if len(beside) == 1:
            return beside[0], root / name
    names = " or ".join(FOLDERS[split])
    raise InputError(
        f"coco_folder: {str(root)!r} has no annotations/instances_*.json, nor one json in a folder {names}"
    )


def _content(text: Path, where: str) -> dict[str, list[Any]]:
    """The three lists of a json."""
    try:
        if (size := text.stat().st_size) > MOST_TEXT:
            raise InputError(f"{where} must have at most {MOST_TEXT:,} bytes; it has {size:,}")
        content = json.loads(text.read_bytes())
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no json: {error}") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise InputError(f"{where} must have the lists {', '.join(lists)}")
    return {name: content[name] for name in lists}


def _classes(categories: list[Any], where: str) -> tuple[list[str], dict[int | str, int]]:
    """Names of the classes in the order of their ids, and the label of each id."""
    if not 1 <= len(categories) <= MOST_CLASSES:
        raise InputError(f"{where} must have 1 to {MOST_CLASSES:,} categories; it has {len(categories):,}")
    names: dict[int | str, str] = {}
    for place, each in enumerate(_objects(categories, f"category {{}} of {where}")):
        what = f"category {place} of {where}"
        if not isinstance(each.get("name"), str):
            raise InputError(f"{what} must have a name")
        names[_key(each, "id", what)] = each["name"]
    if len(names) != len(categories) or len(set(names.values())) != len(names):
        raise InputError(f"categories of {where} must have ids and names of their own; some share one")
    ordered = sorted(names, key=lambda key: (isinstance(key, str), key))
    return [names[key] for key in ordered], {key: label for label, key in enumerate(ordered)}


def _objects(listed: list[Any], what: str) -> Iterable[dict[str, Any]]:
    for place, each in enumerate(listed):
        if not isinstance(each, dict):
            raise InputError(f"{what.format(place)} must be an object with fields; it is {type(each).__name__}")
        yield each


def _key(each: Mapping[str, Any], name: str, what: str) -> int | str:
    """An id: a whole number or a text."""
    key = each.get(name)
    if type(key) is not int and not isinstance(key, str):
        raise InputError(f"{what} must have an {name}, a whole number or a text; it is {key!r}")
    return key


def _corners(box: Any, what: str) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, of left, top, width, height."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
        raise InputError(f"{what} must have a bbox of four numbers; it is {str(box)[:80]}")
    try:
        left, top, width, height = (float(side) for side in box)
    except OverflowError as error:
        raise InputError(f"{what} has a bbox of numbers that are too large") from error
    return left, top, left + width, top + height


def _is_side(side: Any) -> TypeGuard[int]:
    return type(side) is int and 1 <= side <= LONGEST


def _is_below(name: str) -> bool:
    """Whether a name of a file leads nowhere else."""
    path = PurePosixPath(name)
    return name != "" and "\0" not in name and "\\" not in name and not path.is_absolute() and ".." not in path.parts
