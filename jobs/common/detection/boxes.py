"""Boxes of one image: what is drawn on it by people, or found in it by a detector."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image, in any order; of what a detector finds the surest first."""

    corners: Tensor
    """float32 (count, 4): left, top, right, bottom, in pixels of the image, from its upper left corner"""
    labels: Tensor
    """int64 (count,)"""
    scores: Tensor | None = None
    """float32 (count,) in [0, 1]; None: drawn by people, or made"""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: Tensor) -> "Boxes":
        """Some of the boxes. places: int64 (kept,) or bool (count,)."""
        scores = None if self.scores is None else self.scores[places]
        return Boxes(self.corners[places], self.labels[places], scores)

    def of(self, label: int) -> "Boxes":
        """Those of one class."""
        return self.at(self.labels == label)


def areas(corners: Tensor) -> Tensor:
    """Areas of boxes (..., 4) in square pixels: (...). Of a box that is turned inside out it is zero."""
    sides = (corners[..., 2:] - corners[..., :2]).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def overlaps(ours: Tensor, theirs: Tensor) -> Tensor:
    """Intersection over union of boxes (n, 4) with boxes (m, 4): (n, m) in [0, 1]; of two empty boxes it is zero."""
    low = torch.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = torch.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    common = (high - low).clamp_min(0).prod(2)
    union = areas(ours)[:, None] + areas(theirs)[None] - common
    return torch.where(union > 0, common / union.clamp_min(torch.finfo(union.dtype).tiny), torch.zeros_like(common))
