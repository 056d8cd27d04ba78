"""Frames of a film of pedestrians that arrives inside a package (`make data`): whole, and cut to a close view.

Nobody has drawn boxes on them: a box is there where detectors of different kinds agree (see `agreement`).
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.common.data.boxes.agreed_images import AgreedImages, as_squares
from jobs.common.data.boxes.agreement import OVERLAP, agreed_boxes, standing
from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.film import frames
from jobs.common.data.boxes.squares import Squares
from jobs.common.data.debian import OPENCV_DOC
from jobs.common.data.sets import Split
from jobs.common.detection.boxes import Boxes, overlaps
from jobs.common.detection.detectors import coco
from service.errors import InputError

FILM = "vtest.avi"
EVERY = 10  # frames of the film, a second
SECONDS: dict[Split, slice] = {"train": slice(0, 40), "test": slice(50, 80)}
"""of the film, with a gap in which most people walk out of it"""
PERSON = coco.CLASSES.index("person")
CLOSE = 3.0  # side of a close view, in heights of the tallest person
SMALLEST = 240  # pixels of a side of it


def pedestrians(split: Split, source: Source) -> Squares:
    """A street that a camera looks down on, once a second: 40 frames to train, 30 to test, 10 seconds later.

    People are about a tenth of the image's height.
    """
    return as_squares("pedestrians", _of_film(_film, split, source.folder), source)


def close_pedestrians(split: Split, source: Source) -> Squares:
    """The same frames, each cut to the square around its tallest person, who has a third of its height."""
    return as_squares("close_pedestrians", close_frames(split, source.folder), source)


def close_frames(split: Split, folder: Path) -> AgreedImages:
    """The close views of a split, or why there are none."""
    return _of_film(_close_film, split, folder)


def _of_film(read: Callable[[Path, Path], AgreedImages], split: Split, folder: Path) -> AgreedImages:
    file = folder / OPENCV_DOC.holds / FILM
    if not file.is_file():
        return AgreedImages([], [], [f"the film {FILM} of Debian's package {OPENCV_DOC.name} is not in {file.parent}"])
    try:
        return read(file, folder).part(SECONDS[split])
    except InputError as error:
        return AgreedImages([], [], [str(error)])


@cache  # both splits are of one film
def _film(file: Path, folder: Path) -> AgreedImages:
    pixels, boxes, posts = _watched(file, folder)
    kept = [each.at(~_is_post(each, each.corners, posts)) for each in boxes]
    return AgreedImages(pixels, kept, [])


@cache
def _close_film(file: Path, folder: Path) -> AgreedImages:
    """Detectors look at each close view anew: they see more of it."""
    pixels, _, posts = _watched(file, folder)
    views = [closest(image, boxes.of(PERSON)) for image, boxes in zip(pixels, _film(file, folder).boxes, strict=True)]
    cut = [image[view[1] : view[3], view[0] : view[2]] for image, view in zip(pixels, views, strict=True)]
    boxes = []
    for each, view in zip(agreed_boxes(cut, folder), views, strict=True):
        shift = torch.tensor([*view[:2], *view[:2]])
        boxes.append(each.at(~_is_post(each, each.corners + shift, posts)))
    return AgreedImages(cut, boxes, [])


@cache
def _watched(file: Path, folder: Path) -> tuple[list[np.ndarray], list[Boxes], Tensor]:
    """Frames, their boxes, and the corners (n, 4) of what stands where a person is seen again and again."""
    pixels = frames(file, EVERY, SECONDS["test"].stop)
    boxes = agreed_boxes(pixels, folder)
    return pixels, boxes, standing(boxes, PERSON)


def closest(image: np.ndarray, people: Boxes) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the square around the tallest of some people, moved into the image.

    image: (height, width, 3). Without people it is in the middle, as large as it can be.
    """
    height, width = image.shape[:2]
    most = min(height, width)
    if len(people) == 0:
        return (width - most) // 2, (height - most) // 2, (width + most) // 2, (height + most) // 2
    heights = people.corners[:, 3] - people.corners[:, 1]
    left, top, right, bottom = people.corners[heights.argmax()].tolist()
    side = min(max(round(CLOSE * (bottom - top)), SMALLEST), most)
    start = round(min(max((left + right - side) / 2, 0), width - side))
    above = round(min(max((top + bottom - side) / 2, 0), height - side))
    return start, above, start + side, above + side


def _is_post(boxes: Boxes, corners: Tensor, posts: Tensor) -> Tensor:
    """Which boxes are persons where a post stands: bool (n,). corners: theirs, in pixels of the whole frame."""
    return (boxes.labels == PERSON) & (overlaps(corners, posts) >= OVERLAP).any(1)
