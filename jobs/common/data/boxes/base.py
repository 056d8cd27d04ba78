"""What a set of images with boxes is, and a part of one."""

from typing import Any, Protocol

from pydantic import Field
from torch import Tensor

from jobs.common.data.sets import DataSet, FolderParams, Subset
from jobs.common.detection.boxes import Boxes


class BoxSet(DataSet, Protocol):
    """Colour images of one size, each with its boxes. Photographs are fitted into a square, with grey beside them."""

    side: int
    """of all images, in pixels"""
    boxed_by: str | None
    """who drew the boxes, in words, if no person did; None: people"""
    remarks: tuple[str, ...]
    """sentences on what a user would not expect: boxes that were left out, photographs that are not there"""

    def images(self, places: Tensor) -> Tensor:
        """places: int64 (k,). Returns float32 (k, 3, side, side), red green blue in [0, 1]."""

    def boxes(self, place: int) -> Boxes:
        """The boxes of one image, in pixels of the square; each at least partly inside."""


class Source(FolderParams):
    """Where a set of images with boxes lies, and what of it is used."""

    side: int | None = Field(
        None, ge=32, le=1024, description="of the images, in pixels; none: 96 for scenes, 416 for photographs"
    )
    containing: str | None = Field(
        None,
        description="a class: photographs without an object of it that is tall enough are left out; none: all stay",
    )
    tallest_at_least: float = Field(
        0.0, ge=0, lt=1, description="height of the tallest object of that class, as a part of the side, at the least"
    )


class Part(Subset):
    """Some images of a set."""

    def __init__(self, whole: Any, indices: Tensor) -> None:
        """whole: a BoxSet. indices: int64 (k,)."""
        super().__init__(whole, indices)
        self.side: int = whole.side
        self.boxed_by: str | None = whole.boxed_by
        self.remarks: tuple[str, ...] = whole.remarks

    def images(self, places: Tensor) -> Tensor:
        """As of the whole set, by places in the part."""
        images: Tensor = self.whole.images(self.indices[places])
        return images

    def boxes(self, place: int) -> Boxes:
        """As of the whole set, by the place in the part."""
        boxes: Boxes = self.whole.boxes(int(self.indices[place]))
        return boxes
