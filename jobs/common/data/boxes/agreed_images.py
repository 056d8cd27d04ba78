"""Images on which detectors agree, and the set that they become."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from jobs.common.data.boxes.agreement import BOXED_BY
from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.squares import SIDE, Squares, carried, is_wanted, square
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.detectors import coco
from service.errors import InputError


@dataclass(frozen=True)
class AgreedImages:
    """Images of any size with their boxes, and what of them is not there, in sentences."""

    pixels: list[np.ndarray]
    """uint8 (height, width, 3) each"""
    boxes: list[Boxes]
    """in pixels of the image"""
    missing: list[str]

    def __add__(self, others: "AgreedImages") -> "AgreedImages":
        return AgreedImages(self.pixels + others.pixels, self.boxes + others.boxes, self.missing + others.missing)

    def part(self, places: slice) -> "AgreedImages":
        return AgreedImages(self.pixels[places], self.boxes[places], self.missing)


def as_squares(name: str, images: AgreedImages, source: Source) -> Squares:
    """Those in which there is anything, fitted into squares. InputError if there is none."""
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
