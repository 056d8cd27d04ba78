"""From the features of a backbone to logits of the classes, at the resolution of the features."""

from typing import Literal

from torch import nn

from jobs.common.models.classifiers.sunet import initialise

HeadName = Literal["linear", "degridding"]

WIDTH = 512  # of the de-gridding convolutions
MOMENTUM = 0.01  # of their batch norms


def linear_head(channels: int, classes: int) -> nn.Module:
    """One 1x1 convolution."""
    return nn.Sequential(nn.Conv2d(channels, classes, 1))


def degridding_head(channels: int, classes: int) -> nn.Module:
    """Convolutions of dilation 2 and 1, which smooth the grid that dilation leaves (Yu et al. 2017, section 3.2).

    The sizes are those of the code released with the paper.
    """
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH, 3, padding=2, dilation=2),
        nn.BatchNorm2d(WIDTH, momentum=MOMENTUM),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.BatchNorm2d(WIDTH, momentum=MOMENTUM),
        nn.ReLU(),
        nn.Conv2d(WIDTH, classes, 1),
    )


HEADS = {"linear": linear_head, "degridding": degridding_head}


def head(name: HeadName, channels: int, classes: int) -> nn.Module:
    """A head with fresh weights."""
    built = HEADS[name](channels, classes)
    for layer in built.modules():
        initialise(layer)
    return built
