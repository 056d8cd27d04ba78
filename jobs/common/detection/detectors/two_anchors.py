"""A small detector of another build: max-pools, leaky ReLU, a coarser grid, two priors in each cell."""

from collections.abc import Sequence

from torch import nn

from jobs.common.detection.detectors.one_anchor import scaled
from jobs.common.detection.grid import Anchors, GridDetector, in_proportion

ANCHORS = ((15, 40), (24, 64))  # widths and heights, in pixels of a frame of 96
STRIDE = 16
CHANNELS = (12, 24, 48, 64, 80)
SLOPE = 0.1  # of leaky ReLU below zero


def two_anchors(
    classes: Sequence[str] = ("person",),
    side: int = 96,
    anchors: Anchors | None = None,
    width: float = 1.0,
) -> GridDetector:
    """Five convolutions with batch norm, a max-pool of 2 except after the last, and leaky ReLU.

    Arguments as of `one_anchor`. FieldError.
    """
    channels = scaled(CHANNELS, width)
    layers: list[nn.Module] = []
    before = 3
    for place, count in enumerate(channels):
        convolution = nn.Conv2d(before, count, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(count)]
        if place < len(channels) - 1:
            layers.append(nn.MaxPool2d(2))  # before what is monotone, and so is computed of a quarter of the values
        layers.append(nn.LeakyReLU(SLOPE))
        before = count
    return GridDetector(
        "two_anchors", nn.Sequential(*layers), before, STRIDE, classes, side, anchors or in_proportion(ANCHORS, side)
    )
