"""Photographs of people, and frames of a film of pedestrians, that arrive inside packages (`make data`).

Nobody has drawn boxes on them: a box is there where detectors of different kinds agree (see `agreement`).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.common.data.boxes.agreement import BOXED_BY, agreed_boxes, without_standing
from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.film import frames
from jobs.common.data.boxes.squares import SIDE, Squares, carried, is_wanted, square
from jobs.common.data.debian import DARKNET, OPENCV_DOC, DebianPackage
from jobs.common.data.image_files import decode
from jobs.common.data.package_files import Package
from jobs.common.data.packaged import packaged
from jobs.common.data.packages import FACE_API, ULTRALYTICS
from jobs.common.data.sets import Split
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.detectors import coco
from service.errors import InputError

STILLS: tuple[tuple[Package | DebianPackage | str, str], ...] = (
    ("scikit-image", "astronaut.png"),
    (ULTRALYTICS, "bus.jpg"),
    (ULTRALYTICS, "zidane.jpg"),
    *((FACE_API, f"sample{number}.jpg") for number in range(1, 7)),
    (DARKNET, "person.jpg"),
    (DARKNET, "kite.jpg"),
    (OPENCV_DOC, "basketball1.png"),
    (OPENCV_DOC, "messi5.jpg"),
)
"""photographs with people, each with its package; every second one is to test"""
FILM = "vtest.avi"
EVERY = 10  # frames of the film, a second
SECONDS: dict[Split, range] = {"train": range(0, 40), "test": range(50, 80)}
"""of the film, with a gap in which most people walk out of it"""


@dataclass(frozen=True)
class _Images:
    """Images of any size with their boxes, and what of them is not there, in sentences."""

    pixels: list[np.ndarray]
    """uint8 (height, width, 3) each"""
    boxes: list[Boxes]
    """in pixels of the image"""
    missing: list[str]


def photographs(split: Split, source: Source) -> Squares:
    """Thirteen photographs at most: those whose packages are there, every second one to train."""
    return _set("photographs", _stills(split, source.folder), source)


def pedestrians(split: Split, source: Source) -> Squares:
    """A street that a camera looks down on, once a second: 40 frames to train, 30 to test, 10 seconds later."""
    return _set("pedestrians", _frames(split, source.folder), source)


def people(split: Split, source: Source) -> Squares:
    """Both: what `photographs` and `pedestrians` have."""
    stills, film = _stills(split, source.folder), _frames(split, source.folder)
    both = _Images(stills.pixels + film.pixels, stills.boxes + film.boxes, stills.missing + film.missing)
    return _set("people", both, source)


def _set(name: str, images: _Images, source: Source) -> Squares:
    """Those in which detectors agree on something, fitted into squares. InputError if there is none."""
    if not images.pixels:
        raise InputError(f"{name}: there is no image; {'; '.join(images.missing)}", hint="`make data` fetches them")
    side = SIDE if source.side is None else source.side
    sizes = [(image.shape[0], image.shape[1]) for image in images.pixels]
    fitted = [carried(boxes, size, side) for boxes, size in zip(images.boxes, sizes, strict=True)]
    kept = [place for place, each in enumerate(fitted) if len(each) > 0 and is_wanted(each, coco.CLASSES, side, source)]
    if not kept:
        raise InputError(f"{name}: there is no image that holds what data.containing asks for")
    squares = torch.stack([square(Image.fromarray(images.pixels[place]), side) for place in kept])
    return Squares(name, coco.CLASSES, squares, [fitted[place] for place in kept], BOXED_BY, images.missing)


def _stills(split: Split, folder: Path) -> _Images:
    pixels, missing = [], []
    for package, name in STILLS[0 if split == "train" else 1 :: 2]:
        try:
            file = _file(package, name, folder)
        except InputError as error:
            missing.append(error.message)
            continue
        pixels.append(np.array(decode(file, f"photograph {name}")))
    return _Images(pixels, agreed_boxes(pixels, folder), missing)


def _file(package: Package | DebianPackage | str, name: str, folder: Path) -> Path:
    """Where a photograph is. InputError, with its package, if it is not there."""
    if isinstance(package, str):
        return packaged(package, "skimage", f"data/{name}", "photographs")
    if isinstance(package, Package):
        return package.path(name, folder)
    file = folder / package.holds / name
    if not file.is_file():
        raise InputError(f"the photograph {name} of Debian's package {package.name} is not in {file.parent}")
    return file


def _frames(split: Split, folder: Path) -> _Images:
    """Of the film."""
    file = folder / OPENCV_DOC.holds / FILM
    if not file.is_file():
        return _Images([], [], [f"the film {FILM} of Debian's package {OPENCV_DOC.name} is not in {file.parent}"])
    try:
        film = _film(file, folder)
    except InputError as error:
        return _Images([], [], [str(error)])
    seconds = SECONDS[split]
    return _Images(film.pixels[seconds.start : seconds.stop], film.boxes[seconds.start : seconds.stop], [])


@cache  # both splits are of one film
def _film(file: Path, folder: Path) -> _Images:
    pixels = frames(file, EVERY, SECONDS["test"].stop)
    return _Images(pixels, without_standing(agreed_boxes(pixels, folder), coco.CLASSES.index("person")), [])
