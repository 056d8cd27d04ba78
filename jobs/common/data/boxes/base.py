"""What a set of images with boxes is, and a part of one."""

from typing import Any, Protocol

from torch import Tensor

from jobs.common.data.sets import DataSet, Subset
from jobs.common.detection.boxes import Boxes


class BoxSet(DataSet, Protocol):
    """Colour images of one size, each with its boxes. Photographs are fitted into a square, with grey beside them."""

    side: int
    """of all images, in pixels"""
    boxed_by: str | None
    """who drew the boxes, in words, if no person did; None: people"""

    def images(self, places: Tensor) -> Tensor:
        """places: int64 (k,). Returns float32 (k, 3, side, side), red green blue in [0, 1]."""

    def boxes(self, place: int) -> Boxes:
        """The boxes of one image, in pixels of the square; each at least partly inside."""


class Part(Subset):
    """Some images of a set."""

    def __init__(self, whole: Any, indices: Tensor) -> None:
        """whole: a BoxSet. indices: int64 (k,)."""
        super().__init__(whole, indices)
        self.side: int = whole.side
        self.boxed_by: str | None = whole.boxed_by

    def images(self, places: Tensor) -> Tensor:
        """As of the whole set, by places in the part."""
        return self.whole.images(self.indices[places])

    def boxes(self, place: int) -> Boxes:
        """As of the whole set, by the place in the part."""
        return self.whole.boxes(int(self.indices[place]))
