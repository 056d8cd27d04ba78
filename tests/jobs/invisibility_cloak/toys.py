"""Small detectors and sets of images with boxes, for tests."""

import torch
from torch import Tensor, nn

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes


class Spots(Detector):
    """Sees persons where a place is bright: one prior for each square of 8 pixels, with boxes of 16 x 40."""

    substitute = None

    def __init__(self, name: str = "spots", channel: int = 0, momentum: float = 0.1) -> None:
        super().__init__()
        self.name, self.classes, self.channel = name, ("person", "tree"), channel
        self.norm = nn.BatchNorm2d(3, momentum=momentum)
        self.weight = nn.Parameter(torch.tensor(8.0))

    def priors(self, images: Tensor) -> Priors:
        height, width = images.shape[2] // 8, images.shape[3] // 8
        seen = nn.functional.avg_pool2d(self.norm(images), 8)[:, :, :height, :width]
        logits = self.weight * (seen - 0.5)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres = torch.stack([columns, rows], 2).reshape(-1, 2) * 8.0 + 4
        half = torch.tensor([8.0, 20.0])
        corners = torch.cat([centres - half, centres + half], 1).expand(len(images), -1, -1)
        classes = torch.softmax(torch.stack([logits[:, 1], logits[:, 2]], -1), -1).flatten(1, 2)
        return Priors(corners, logits[:, self.channel].flatten(1), classes)

    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        with torch.no_grad():
            priors = self.priors(images)
            scores, labels = priors.scores().max(2)
            result = []
            for image in range(len(images)):
                order = scores[image].argsort(descending=True)[:1]
                order = order[scores[image][order] >= confidence]
                result.append(Boxes(priors.corners[image][order], labels[image][order], scores[image][order]))
            return result


class Restless(Spots):
    """A detector that learns while it is asked, whatever mode it is in: what an attack must not be blind to."""

    def priors(self, images: Tensor) -> Priors:
        self.norm.train()
        return super().priors(images)
