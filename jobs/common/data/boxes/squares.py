"""Photographs with boxes, fitted into squares with grey beside them: in memory, or decoded when they are asked for."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jobs.common.data.boxes.base import Source
from jobs.common.data.image_files import FORMATS, decode
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.letterbox import placed
from service.errors import FieldError, InputError, unknown

SIDE = 416
GREY = (128, 128, 128)
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # a tag of EXIF data, and its values by which the sides change places
MOST_KEPT = 512 << 20  # bytes of squares that a set of files keeps decoded


@dataclass(frozen=True)
class Photograph:
    """An image file, its size as it is to be seen, and its boxes in pixels of it."""

    file: Path
    height: int
    width: int
    boxes: Boxes


class Squares:
    """A set in memory."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        images: Tensor,
        boxes: Sequence[Boxes],
        boxed_by: str | None = None,
        remarks: Iterable[str] = (),
    ) -> None:
        """images: uint8 (n, 3, side, side). boxes: of each, in pixels of the square."""
        self.name, self.classes, self.side = name, tuple(classes), images.shape[2]
        self.boxed_by, self.remarks = boxed_by, tuple(remarks)
        self._images, self._boxes = images, list(boxes)

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        digest.update(self._images.contiguous().numpy().data)
        for boxes in self._boxes:
            _add(digest, boxes)
        return digest.hexdigest()

    def images(self, places: Tensor) -> Tensor:
        """places: int64 (k,). Returns float32 (k, 3, side, side) in [0, 1]."""
        return self._images[places].float() / 255

    def boxes(self, place: int) -> Boxes:
        """The boxes of one image."""
        return self._boxes[place]


class SquareFiles:
    """A set on disk. Squares are kept decoded up to a limit, those asked for last."""

    boxed_by: str | None = None

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        photographs: Sequence[Photograph],
        source: Source,
        remarks: Iterable[str],
    ) -> None:
        """What the source leaves out is left out here. InputError if nothing is left."""
        self.name, self.classes, self.side = name, tuple(classes), SIDE if source.side is None else source.side
        kept = [each for each in photographs if is_wanted(self._fitted(each), self.classes, self.side, source)]
        if not kept:
            what = "" if source.containing is None else f" with a {source.containing} that is tall enough"
            raise InputError(f"{name}: there is no image{what}")
        self._photographs, self.remarks = kept, tuple(remarks)
        self._kept: OrderedDict[int, Tensor] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is sent the set decodes it itself."""
        return {**self.__dict__, "_kept": OrderedDict()}

    def __len__(self) -> int:
        return len(self._photographs)

    @cached_property
    def digest(self) -> str:
        """Of the names, sizes and boxes of all files, not of their bytes."""
        listed = [(each.file.name, each.file.stat().st_size) for each in self._photographs]
        digest = hashlib.sha256(json.dumps([self.classes, self.side, listed]).encode())
        for each in self._photographs:
            _add(digest, each.boxes)
        return digest.hexdigest()

    def images(self, places: Tensor) -> Tensor:
        """places: int64 (k,). Returns float32 (k, 3, side, side) in [0, 1].

        InputError, naming the file: it cannot be read, or is not of the size that its boxes are for.
        """
        return torch.stack([self._square(int(place)) for place in places]).float() / 255

    def boxes(self, place: int) -> Boxes:
        """The boxes of one image, in pixels of the square."""
        return self._fitted(self._photographs[place])

    def _fitted(self, photograph: Photograph) -> Boxes:
        return carried(photograph.boxes, (photograph.height, photograph.width), self.side)

    def _square(self, place: int) -> Tensor:
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        photograph = self._photographs[place]
        image = decode(photograph.file, f"image {str(photograph.file)!r}")
        if image.size != (photograph.width, photograph.height):
            raise InputError(
                f"image {str(photograph.file)!r} is {image.width}x{image.height}, but its boxes are for one of "
                f"{photograph.width}x{photograph.height}",
                "an image counts as it is to be seen, turned as its EXIF data say: its boxes must be turned as well",
            )
        self._kept[place] = square(image, self.side)
        if len(self._kept) * self._kept[place].nbytes > MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[place]


def square(image: Image.Image, side: int) -> Tensor:
    """An RGB image in the middle of a square, as large as it can be: uint8 (3, side, side)."""
    placement, (height, width) = placed((image.height, image.width), (side, side))
    frame = Image.new("RGB", (side, side), GREY)
    smaller = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
    frame.paste(smaller, (int(placement.left), int(placement.top)))
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1).contiguous()


def seen_size(file: Path) -> tuple[int, int]:
    """Height and width of an image file as it is to be seen; it is not decoded. InputError if it is no image."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            lies = image.getexif().get(ORIENTATION, 1) in TURNED
    except Exception as error:  # damaged files make the decoders raise almost anything
        raise InputError(f"image {str(file)!r} cannot be read: {error}") from error
    return (width, height) if lies else (height, width)


def carried(boxes: Boxes, size: tuple[int, int], side: int) -> Boxes:
    """Boxes in pixels of an image, in those of the square that it is fitted into. size: height and width."""
    placement, _ = placed(size, (side, side))
    return Boxes(placement.into(boxes.corners), boxes.labels, boxes.scores)


def inside(corners: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Boxes, int]:
    """Boxes clipped to their image, and how many were left out: those without a size, outside, or not of numbers.

    corners: (n, 4). labels: int64 (n,). size: height and width of the image.
    """
    corners = corners.float()
    has_size = corners.isfinite().all(1) & (corners[:, 2:] > corners[:, :2]).all(1)
    clipped = torch.minimum(corners.clamp_min(0), torch.tensor([size[1], size[0]] * 2))
    kept = has_size & (clipped[:, 2:] > clipped[:, :2]).all(1)
    return Boxes(clipped[kept], labels[kept]), int((~kept).sum())


def left_out(count: int, which: str = "without a size, or outside of their image,") -> list[str]:
    """The sentence on boxes that were left out, if there were any."""
    return [] if count == 0 else [f"{count:,} boxes {which} were left out"]


def is_wanted(boxes: Boxes, classes: Sequence[str], side: int, source: Source) -> bool:
    """Whether a photograph stays. boxes: in pixels of the square. UnknownNameError if there is no such class."""
    if source.containing is None:
        if source.tallest_at_least > 0:
            raise FieldError("data.tallest_at_least", "be 0 without data.containing", source.tallest_at_least)
        return True
    if source.containing not in classes:
        raise unknown("class", source.containing, classes)
    corners = boxes.of(list(classes).index(source.containing)).corners
    return len(corners) > 0 and float((corners[:, 3] - corners[:, 1]).max()) >= source.tallest_at_least * side


def _add(digest: "hashlib._Hash", boxes: Boxes) -> None:
    digest.update(boxes.corners.contiguous().numpy().data)
    digest.update(boxes.labels.contiguous().numpy().data)
