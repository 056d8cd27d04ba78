"""Photographs of people that arrive inside packages (`make data`).

Nobody has drawn boxes on them: a box is there where detectors of different kinds agree (see `agreement`).
"""

from pathlib import Path

import numpy as np

from jobs.common.data.boxes.agreed_images import AgreedImages, as_squares
from jobs.common.data.boxes.agreement import agreed_boxes
from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.pedestrians import close_frames
from jobs.common.data.boxes.squares import Squares
from jobs.common.data.debian import DARKNET, OPENCV_DOC, DebianPackage
from jobs.common.data.image_files import decode
from jobs.common.data.package_files import Package
from jobs.common.data.packaged import packaged
from jobs.common.data.packages import FACE_API, ULTRALYTICS
from jobs.common.data.sets import Split
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


def photographs(split: Split, source: Source) -> Squares:
    """Thirteen photographs at most: those whose packages are there, every second one to train."""
    return as_squares("photographs", _stills(split, source.folder), source)


def people(split: Split, source: Source) -> Squares:
    """The photographs, and close views of pedestrians: 47 images to train, 36 to test, if all are there."""
    return as_squares("people", _stills(split, source.folder) + close_frames(split, source.folder), source)


def _stills(split: Split, folder: Path) -> AgreedImages:
    pixels, missing = [], []
    for package, name in STILLS[0 if split == "train" else 1 :: 2]:
        try:
            file = _file(package, name, folder)
        except InputError as error:
            missing.append(error.message)
            continue
        pixels.append(np.array(decode(file, f"photograph {name}")))
    return AgreedImages(pixels, agreed_boxes(pixels, folder), missing)


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
