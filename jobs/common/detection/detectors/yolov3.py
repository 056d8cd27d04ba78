"""YOLOv3: 62 million weights for the classes of COCO, three priors in each cell of three grids, with objectness.

Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement" (arXiv 1804.02767). Its weights are in a file of darknet's,
which the user has: nothing is fetched.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.detectors import coco
from jobs.common.detection.detectors.yolo import Convolution, Head, check_classes, decoded
from jobs.common.detection.letterbox import letterbox
from service.errors import FieldError

ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
"""widths and heights of the priors in pixels of the frame, three of each grid, the finest grid first"""
COARSEST, LARGEST_SIDE = 32, 2048
BLOCKS = (1, 2, 8, 8, 4)
"""residual blocks after each halving of the sides"""


class Residual(nn.Module):
    """What a small convolution and a large one add to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Convolution(channels, channels // 2, 1), Convolution(channels // 2, channels))

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, height, width). Returns the same shape."""
        added: Tensor = self.layers(features)
        return features + added


class Grid(nn.Module):
    """One of the three grids: what comes from the coarser one, joined with features; then five convolutions, a head."""

    def __init__(self, before: int, channels: int, lateral: int | None, classes: int) -> None:
        """lateral: channels of the coarser grid; None: there is none. The order is that of the weights in the file."""
        super().__init__()
        self.lateral = None if lateral is None else Convolution(lateral, lateral // 2, 1)
        joined = before + (lateral or 0) // 2
        pairs = (
            (Convolution(each, channels, 1), Convolution(channels, 2 * channels)) for each in (joined, 2 * channels)
        )
        self.body = nn.Sequential(*chain.from_iterable(pairs), Convolution(2 * channels, channels, 1))
        self.head = Head(channels, 2 * channels, 3, classes)

    def forward(self, features: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """features: (batch, before, rows, columns). coarser: of half its sides. Returns features for the next grid, and
        answers.
        """
        if self.lateral is not None:
            assert coarser is not None
            features = torch.cat([functional.interpolate(self.lateral(coarser), scale_factor=2), features], 1)
        features = self.body(features)
        return features, self.head(features)


class YoloV3(Detector):
    """Priors: those of the coarsest grid first; in each, all cells of the first anchor, then those of the next."""

    name = "yolov3"
    substitute = None
    side: int

    def __init__(self, classes: Sequence[str] = coco.CLASSES, side: int = 416) -> None:
        """side: of the frame, in pixels. FieldError."""
        check_classes(classes)
        if not COARSEST <= side <= LARGEST_SIDE or side % COARSEST:
            raise FieldError("side", f"be a multiple of {COARSEST} up to {LARGEST_SIDE:,}", side)
        super().__init__()
        self.classes, self.side = tuple(classes), side
        self.stem = Convolution(3, 32)
        self.stages = nn.ModuleList(
            nn.Sequential(
                Convolution(32 << place, 64 << place, stride=2), *(Residual(64 << place) for _ in range(count))
            )
            for place, count in enumerate(BLOCKS)
        )
        self.grids = nn.ModuleList(
            Grid(before, channels, lateral, len(classes))
            for before, channels, lateral in ((1024, 512, None), (512, 256, 512), (256, 128, 256))
        )

    def priors(self, images: Tensor) -> Priors:
        frames, placement = letterbox(images, self.side, self.side)
        features = [self.stem(frames)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        coarser: Tensor | None = None
        for place, grid in enumerate(self.grids):
            coarser, answers = grid(features[-1 - place], coarser)
            anchors = ANCHORS[len(ANCHORS) - 3 * (place + 1) :][:3]
            parts.append(decoded(answers, anchors, self.side))
        corners, objectness, classes = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        levels = tuple(part[1].shape[1] for part in parts)
        return Priors(placement.back(corners), objectness, classes, levels)
