"""A small detector with strided convolutions and one prior in each cell: 89 thousand weights."""

from collections.abc import Sequence

from torch import nn

from jobs.common.detection.grid import Anchors, GridDetector, in_proportion
from jobs.common.models.architectures import check_numbers

ANCHORS = ((20, 53),)  # widths and heights, in pixels of a frame of 96
STRIDE = 8
CHANNELS = (16, 32, 48, 64, 64)


def one_anchor(
    classes: Sequence[str] = ("person",),
    side: int = 96,
    anchors: Anchors | None = None,
    width: float = 1.0,
) -> GridDetector:
    """Five convolutions with batch norm and ReLU, the first three of stride 2.

    side: of the frame, in pixels. anchors: a width and a height each, in pixels of it; None: those of a side of 96 in
    proportion. width: multiplies the numbers of channels. FieldError.
    """
    channels = scaled(CHANNELS, width)
    layers: list[nn.Module] = []
    before = 3
    for place, count in enumerate(channels):
        convolution = nn.Conv2d(before, count, 3, 2 if place < 3 else 1, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(count), nn.ReLU()]
        before = count
    return GridDetector(
        "one_anchor", nn.Sequential(*layers), before, STRIDE, classes, side, anchors or in_proportion(ANCHORS, side)
    )


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """Numbers of channels, times a width. FieldError."""
    counts = [max(1, round(width * count)) for count in channels]
    check_numbers(**{f"channels of convolution {place}": count for place, count in enumerate(counts, start=1)})
    return counts
