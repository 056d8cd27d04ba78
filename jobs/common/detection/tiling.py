"""Images larger than what a detector sees well: it sees the whole, shrunk, and overlapping tiles, and all are merged.

A detector brings every image to the size of its network, so that small objects of a large image would be lost. In a
tile they keep their size. What ends at a border of a tile inside the image is cut there and dropped: an object that is
no larger than the overlap is whole in a neighbour, and larger ones are seen in the whole image. What ends near to such
a border is dropped if it lies in another box of its class: it is a part of what that box is around.
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from jobs.common.detection.boxes import Boxes, covered
from jobs.common.detection.suppression import kept
from jobs.common.params import StudyParams
from service.errors import FieldError

MOST_TILES = 1024  # of an image, with the whole
EDGE, NEAR = 0.01, 0.05  # of the side of a tile: what ends so near to its border is cut, or may be
INSIDE = 0.8  # of the area of a box that may be cut: it is a part of the box that covers so much of it
CANDIDATES = 2048  # boxes of all parts that are compared with each other, the surest

Detect = Callable[[Tensor], list[Boxes]]
"""from images (batch, 3, height, width) to the boxes of each"""


class Tiles(StudyParams):
    """How a large image is cut."""

    side: int = Field(640, ge=64, le=65_536, description="of a tile, in pixels; a smaller image is seen as it is")
    overlap: float = Field(0.25, ge=0.1, le=0.5, description="of neighbours, as a share of a side")
    batch: int = Field(4, ge=1, le=1024, description="tiles that are seen at once")

    @model_validator(mode="after")
    def _edges_overlap(self) -> "Tiles":
        if self.overlap * self.side < 8:
            raise FieldError("overlap", f"be at least 8 pixels of {self.side}", self.overlap)
        return self

    def fits(self, height: int, width: int) -> bool:
        """Whether an image is seen as it is."""
        return max(height, width) <= self.side

    def starts(self, length: int) -> list[int]:
        """Where tiles begin along a side of an image of that length: evenly, the last one ends where the image does."""
        if length <= self.side:
            return [0]
        shared = round(self.overlap * self.side)
        count = ceil((length - shared) / (self.side - shared))
        return [round(place * (length - self.side) / (count - 1)) for place in range(count)]

    def count(self, height: int, width: int) -> int:
        """How many images the detector sees of one of that size."""
        if self.fits(height, width):
            return 1
        return 1 + len(self.starts(height)) * len(self.starts(width))


def tiled(detect: Detect, image: Tensor, tiles: Tiles, overlap: float, most: int) -> Boxes:
    """The boxes of an image of any size, the surest first.

    image: (3, height, width). overlap: above which the less sure of two boxes of a class is dropped. most: boxes.
    An image no larger than a tile is exactly what `detect` says of it. What is held at any time is one batch of tiles.
    """
    _, height, width = image.shape
    if tiles.fits(height, width):
        return detect(image[None])[0]
    found = [_of_whole(detect, image, tiles.side)]
    doubtful = [torch.zeros(len(found[0]), dtype=torch.bool)]
    down, across = min(height, tiles.side), min(width, tiles.side)
    places = [(top, left) for top in tiles.starts(height) for left in tiles.starts(width)]
    for group in _groups(places, tiles.batch):
        cut = torch.stack([image[:, top : top + down, left : left + across] for top, left in group])
        for boxes, (top, left) in zip(detect(cut), group, strict=True):
            offset = boxes.corners.new_tensor([left, top, left, top])
            moved = Boxes(boxes.corners + offset, boxes.labels, boxes.scores)
            margins = _margins(moved.corners, (top, left), (down, across), (height, width)) / tiles.side
            found.append(moved.at(margins > EDGE))
            doubtful.append(margins[margins > EDGE] <= NEAR)
    return merged(found, torch.cat(doubtful), overlap, most)


def merged(parts: Sequence[Boxes], doubtful: Tensor, overlap: float, most: int) -> Boxes:
    """The boxes of parts of an image, in pixels of the image, without those that say the same. As in `tiled`.

    doubtful: bool (boxes of all parts,): those that may be cut.
    """
    scores = torch.cat([part.scores for part in parts if part.scores is not None])
    every = Boxes(torch.cat([part.corners for part in parts]), torch.cat([part.labels for part in parts]), scores)
    order = scores.argsort(descending=True, stable=True)[:CANDIDATES]
    boxes, doubtful = every.at(order), doubtful[order]
    assert boxes.scores is not None
    places = kept(boxes.corners, boxes.scores, boxes.labels, overlap)
    boxes, doubtful = boxes.at(places), doubtful[places]
    return boxes.at((~(doubtful & _are_parts(boxes))).nonzero().flatten()[:most])


def _of_whole(detect: Detect, image: Tensor, side: int) -> Boxes:
    """What is seen in the whole image, shrunk so that its longer side is one of a tile."""
    _, height, width = image.shape
    scale = side / max(height, width)
    size = max(1, round(scale * height)), max(1, round(scale * width))
    shrunk = interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    (boxes,) = detect(shrunk)
    back = boxes.corners.new_tensor([width / size[1], height / size[0]]).repeat(2)
    return Boxes(boxes.corners * back, boxes.labels, boxes.scores)


def _margins(corners: Tensor, start: tuple[int, int], size: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Pixels between boxes (count, 4) of a tile and the nearest of its borders inside the image: (count,).

    start: top and left of the tile. size: its height and width. whole: those of the image.
    """
    margins = [torch.full((len(corners),), float("inf"))]
    for axis in (0, 1):
        low, high = corners[:, 1 - axis], corners[:, 3 - axis]
        if start[axis] > 0:
            margins.append(low - start[axis])
        if start[axis] + size[axis] < whole[axis]:
            margins.append(start[axis] + size[axis] - high)
    return torch.stack(margins).amin(0)


def _are_parts(boxes: Boxes) -> Tensor:
    """Which boxes lie in another one of their class: bool (count,)."""
    shares = covered(boxes.corners, boxes.corners)
    shares[boxes.labels[:, None] != boxes.labels] = 0
    return shares.fill_diagonal_(0).ge(INSIDE).any(1)


def _groups(places: list[tuple[int, int]], batch: int) -> Iterator[list[tuple[int, int]]]:
    for begin in range(0, len(places), batch):
        yield places[begin : begin + batch]
