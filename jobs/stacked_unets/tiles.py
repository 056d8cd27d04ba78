"""Images of any size, in memory that is bounded: overlapping tiles whose scores are blended, one strip at a time.

The scores of a tile are wrong near those of its borders that are not borders of the image, because the network sees
nothing beyond them. So a quarter of an overlap counts for nothing, and over the half in the middle of it one tile's
weight falls linearly to 0 while its neighbour's rises. Tiles begin at multiples of the largest stride of a network:
its features lie as they would in the whole image, and at borders of the image it answers as it would there.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, pairwise

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from jobs.common.params import StudyParams
from jobs.common.passes import Batches, passes
from service.errors import FieldError

ALIGNMENT = 64  # pixels: the largest stride inside a stacked u-net

Score = Callable[[Tensor], Tensor]
"""from images (batch, channels, height, width) to (batch, classes, height, width): logits or probabilities"""


class Tiling(StudyParams):
    """How a large image is cut."""

    side: int = Field(512, ge=2 * ALIGNMENT, le=4096, description="of a tile, in pixels: a multiple of 64")
    overlap: int = Field(
        192,
        ge=ALIGNMENT,
        le=2048,
        description="of neighbours, in pixels: a multiple of 64, at most half a side",
    )
    batch: int = Field(
        1, ge=1, le=1024, description="tiles of one row that are computed at once on a CPU; on a GPU as many as fit"
    )

    @model_validator(mode="after")
    def _aligned(self) -> "Tiling":
        for name, length in (("side", self.side), ("overlap", self.overlap)):
            if length % ALIGNMENT:
                raise FieldError(name, f"be a multiple of {ALIGNMENT}", length)
        if 2 * self.overlap > self.side:
            raise FieldError("overlap", f"be at most {self.side // 2}, half a side", self.overlap)
        return self

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Where tiles begin and end along a side of an image of that length, in pixels. The last one may be shorter."""
        starts = range(0, max(length - self.overlap, 1), self.side - self.overlap)
        return [(start, min(start + self.side, length)) for start in starts]

    def window(self, span: tuple[int, int], length: int) -> Tensor:
        """The weights of a tile's pixels along one side: float (end - start,). Those of all tiles add up to 1."""
        start, end = span
        middle = torch.arange(end - start) + 0.5  # of each pixel, from the tile's start
        margin, ramp = self.overlap / 4, self.overlap / 2
        weights = torch.ones(end - start)
        if start > 0:
            weights = weights.minimum(((middle - margin) / ramp).clamp(0, 1))
        if end < length:
            weights = weights.minimum(((end - start - middle - margin) / ramp).clamp(0, 1))
        return weights


def strips(score: Score, image: Tensor, tiling: Tiling, network: nn.Module | None = None) -> Iterator[Tensor]:
    """The scores of an image from top to bottom: (classes, rows, width) each, on the device of the image.

    network: what score runs; without it a batch is that of the tiling also on a GPU.
    image: (channels, height, width). An image no larger than a tile is one strip, and exactly what `score` says of it.
    What is held at any time is the scores of one row of tiles, not those of the image.
    """
    _, height, width = image.shape
    rows = tiling.spans(height)
    left: Tensor | None = None  # scores of rows that the tiles below will add to
    for (top, bottom), following in zip(rows, [*rows[1:], None], strict=True):
        strip = _row(score, image[:, top:bottom], tiling, network)
        if len(rows) > 1:
            strip *= tiling.window((top, bottom), height).to(strip.device)[:, None]
        if left is not None:
            strip[:, : left.shape[1]] += left
        done = bottom - top if following is None else following[0] - top
        left = strip[:, done:].clone()
        yield strip[:, :done]


def _row(score: Score, image: Tensor, tiling: Tiling, network: nn.Module | None) -> Tensor:
    """The blended scores of a row of tiles. image: (channels, rows, width). Returns (classes, rows, width)."""
    width = image.shape[2]
    spans = tiling.spans(width)
    if len(spans) == 1:
        return score(image[None])[0]
    strip: Tensor | None = None
    for group in _alike(spans):
        tiles = torch.stack([image[:, :, start:end] for start, end in group])
        act = partial(_scored, score, tiles)
        if network is None:
            parts = Batches(tiling.batch, "tiles").over(act, len(tiles))
        else:
            parts = passes(act, len(tiles), network, tiles.shape[1:], purpose="tiles", on_cpu=tiling.batch)
        for each, (start, end) in zip(chain.from_iterable(parts), group, strict=True):  # (classes, rows, side)
            if strip is None:
                strip = each.new_zeros(each.shape[0], image.shape[1], width)
            strip[:, :, start:end] += each * tiling.window((start, end), width).to(each.device)
    assert strip is not None
    return strip


def _scored(score: Score, tiles: Tensor, rows: slice) -> Tensor:
    return score(tiles[rows])


def _alike(spans: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Neighbours of the same length."""
    lengths = [end - start for start, end in spans]
    breaks = [index for index, (one, other) in enumerate(pairwise(lengths), 1) if one != other]
    for first, last in pairwise([0, *breaks, len(spans)]):
        yield spans[first:last]
