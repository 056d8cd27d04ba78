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
    common = _common(ours, theirs)
    return _share(common, areas(ours)[:, None] + areas(theirs)[None] - common)


def covered(ours: Tensor, theirs: Tensor) -> Tensor:
    """Which share of each of our boxes (n, 4) each of theirs (m, 4) covers: (n, m) in [0, 1]; of an empty one zero."""
    return _share(_common(ours, theirs), areas(ours)[:, None].expand(-1, len(theirs)))


def _common(ours: Tensor, theirs: Tensor) -> Tensor:
    """Areas that boxes (n, 4) and boxes (m, 4) have in common: (n, m)."""
    low = torch.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = torch.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    return (high - low).clamp_min(0).prod(2)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(torch.finfo(whole.dtype).tiny), torch.zeros_like(part))
