"""How well pixels are classified, from one matrix of counts. Pixels whose true label is IGNORE count nowhere.

Source: Everingham et al. 2015, "The PASCAL Visual Object Classes challenge: a retrospective", section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORE = 255
"""the label of pixels without a class: borders between objects, padding"""


def confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many pixels of each class are taken for each: int64 (classes, classes), truth by prediction.

    truth: integers of any shape in 0..classes-1, or IGNORE. predicted: integers of the same shape in 0..classes-1.
    """
    counted = truth != IGNORE
    pairs = truth[counted].long() * classes + predicted[counted].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


@dataclass(frozen=True)
class SegmentationScores:
    """What a confusion matrix says. All are shares in [0, 1]; those of classes without a pixel are NaN."""

    iou: Tensor
    """float64 (classes,): intersection over union of truth and prediction"""
    accuracy: Tensor
    """float64 (classes,): of the pixels of a class, those that are classified as such"""
    pixels: Tensor
    """int64 (classes,): of each class in the truth"""
    pixel_accuracy: float
    """of all pixels"""

    @property
    def present(self) -> Tensor:
        """bool (classes,): the classes that the truth has. The means are over these alone."""
        return self.pixels > 0

    @property
    def mean_iou(self) -> float:
        return float(self.iou[self.present].mean())

    @property
    def mean_accuracy(self) -> float:
        return float(self.accuracy[self.present].mean())

    def metrics(self) -> dict[str, float]:
        """mean_iou, pixel_accuracy and mean_accuracy."""
        return {
            "mean_iou": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
        }

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each class. A class that is absent from the truth has no scores, and its row says so."""
        total = int(self.pixels.sum())
        return [
            {
                "class": name,
                "iou": float(iou) if count else None,
                "accuracy": float(accuracy) if count else None,
                "share_of_pixels": int(count) / total if total else 0.0,
                "counted": "yes" if count else "no: absent from the truth",
            }
            for name, iou, accuracy, count in zip(names, self.iou, self.accuracy, self.pixels, strict=True)
        ]


def scores(matrix: Tensor) -> SegmentationScores:
    """matrix: int64 (classes, classes), truth by prediction."""
    right, truth, predicted = matrix.diagonal().double(), matrix.sum(1), matrix.sum(0)
    absent = truth == 0
    union = (truth + predicted).double() - right
    total = int(matrix.sum())
    return SegmentationScores(
        iou=(right / union).masked_fill(absent, torch.nan),
        accuracy=right / truth,
        pixels=truth,
        pixel_accuracy=float(right.sum()) / total if total else float("nan"),
    )
