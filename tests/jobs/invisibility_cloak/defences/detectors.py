"""A detector whose boxes are known: bright blobs."""

import torch
from torch import Tensor

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes


class WhiteFinder(Detector):
    """Finds the box around the white pixels of each image, unless a red pixel is seen: a patch that hides it."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.classes, self.substitute = "white_finder", ("white", "other"), None

    def priors(self, images: Tensor) -> Priors:
        logits = 20 * (images.mean(1).flatten(1) - 0.5)
        corners = torch.zeros(*logits.shape, 4)
        return Priors(corners, logits, torch.ones(*logits.shape, 2) / 2)

    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        found = []
        for image in images:
            white = (image > 0.9).all(0)
            red = ((image[0] > 0.9) & (image[1:] < 0.1).all(0)).any()
            if not white.any() or red:
                found.append(Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0)))
                continue
            rows, columns = white.any(1).nonzero(), white.any(0).nonzero()
            ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            score = 0.9 if int(white.sum()) > 20 else 0.3
            found.append(Boxes(torch.stack(ends).float()[None], torch.tensor([0]), torch.tensor([score])))
        return found
