"""Random changes of an image together with its labels: scale, crop, mirror, rotation. Labels are never interpolated.

Source: the released code of Shah et al. 2018 (ptsemseg/augmentations), in its order.
"""

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from jobs.common.metrics.segmentation import IGNORE
from jobs.common.params import StudyParams
from service.errors import FieldError

DRAWS = 5  # numbers that one image takes


class JointAugmentationParams(StudyParams):
    """Random changes, drawn anew for each image whenever it is seen."""

    scale: tuple[float, float] = Field((1.0, 1.0), description="least and most that an image is resized by")
    crop: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="side of a square cut out at a random place, in pixels; where the image is smaller it is padded "
        "with black that does not count; none: the whole image",
    )
    flip: bool = Field(True, description="mirror each image left to right with probability one half")
    rotate: float = Field(0.0, ge=0, le=180, description="most that an image is turned by either way, in degrees")

    @model_validator(mode="after")
    def _ordered(self) -> "JointAugmentationParams":
        low, high = self.scale
        if not 0.01 <= low <= high <= 100:
            raise FieldError("scale", "be two numbers from 0.01 to 100, the least first", self.scale)
        return self

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated, which is done on the CPU; whatever else is done where the images are."""
        return self.scale != (1.0, 1.0) or self.rotate > 0

    def apply(self, image: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """image: uint8 (3, height, width). labels: uint8 (height, width). draws: (DRAWS,), uniform in [0, 1)."""
        scale, row, column, mirror, angle = draws.tolist()
        low, high = self.scale
        if low != 1 or high != 1:
            image, labels = resize(image, labels, low + (high - low) * scale)
        if self.crop is not None:
            image, labels = crop(image, labels, self.crop, row, column)
        if self.flip and mirror < 0.5:
            image, labels = image.flip(2), labels.flip(1)
        if self.rotate:
            image, labels = rotate(image, labels, self.rotate * (2 * angle - 1))
        return image, labels


def resize(image: Tensor, labels: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """An image interpolated linearly, and the label nearest to each pixel. scale: of both sides, above 0."""
    height, width = (max(round(side * scale), 1) for side in labels.shape)
    return (
        _pixels(_picture(image).resize((width, height), Image.Resampling.BILINEAR)),
        _labels(Image.fromarray(labels.numpy()).resize((width, height), Image.Resampling.NEAREST)),
    )


def crop(image: Tensor, labels: Tensor, side: int, row: float, column: float) -> tuple[Tensor, Tensor]:
    """A square at a place in [0, 1) of what is free, downwards and across. A smaller image is padded on all sides."""
    height, width = labels.shape
    if height < side or width < side:
        tall, wide = max(height, side), max(width, side)
        top, left = (tall - height) // 2, (wide - width) // 2
        larger, padding = image.new_zeros(3, tall, wide), labels.new_full((tall, wide), IGNORE)
        larger[:, top : top + height, left : left + width] = image
        padding[top : top + height, left : left + width] = labels
        image, labels = larger, padding
    top, left = (int(draw * (length - side + 1)) for draw, length in zip((row, column), labels.shape, strict=True))
    return image[:, top : top + side, left : left + side], labels[top : top + side, left : left + side]


def rotate(image: Tensor, labels: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Turned around the middle, counter-clockwise, at the same size. What comes in at the corners does not count."""
    return (
        _pixels(_picture(image).rotate(degrees, Image.Resampling.BICUBIC)),
        _labels(Image.fromarray(labels.numpy()).rotate(degrees, Image.Resampling.NEAREST, fillcolor=IGNORE)),
    )


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _labels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture))
