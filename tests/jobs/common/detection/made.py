"""Boxes that are drawn at random, and a detector that is a table: what it answers is what it was made with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.common.detection.boxes import Boxes


def drawn(
    stream: torch.Generator, count: int, classes: int, side: float = 40.0, scored: bool = True, levels: int = 12
) -> Boxes:
    """Boxes with many ties: whole corners, and scores of a few levels."""
    low = torch.randint(0, int(0.7 * side), (count, 2), generator=stream).float()
    sides = torch.randint(1, int(0.5 * side), (count, 2), generator=stream).float()
    labels = torch.randint(0, classes, (count,), generator=stream)
    scores = torch.randint(1, levels, (count,), generator=stream).float() / levels
    return Boxes(torch.cat([low, low + sides], 1), labels, scores if scored else None)


def moved(stream: torch.Generator, boxes: Boxes, classes: int, reach: float = 3.0, levels: int = 12) -> Boxes:
    """Boxes near others, some of another class, with scores: what a detector might find of them."""
    corners = boxes.corners + torch.randint(-int(reach), int(reach) + 1, boxes.corners.shape, generator=stream)
    corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
    others = torch.randint(0, classes, boxes.labels.shape, generator=stream)
    labels = torch.where(torch.rand(boxes.labels.shape, generator=stream) < 0.8, boxes.labels, others)
    return Boxes(corners, labels, torch.randint(1, levels, (len(boxes),), generator=stream).float() / levels)


def joined(parts: Sequence[Boxes]) -> Boxes:
    """All boxes of several images, as of one."""
    scores = [each.scores for each in parts if each.scores is not None]
    return Boxes(
        torch.cat([each.corners for each in parts]),
        torch.cat([each.labels for each in parts]),
        torch.cat(scores) if scores else None,
    )


def overlap(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Intersection over union, in plain numbers."""
    across = max(0.0, min(ours[2], theirs[2]) - max(ours[0], theirs[0]))
    down = max(0.0, min(ours[3], theirs[3]) - max(ours[1], theirs[1]))
    both = sum((right - left) * (bottom - top) for left, top, right, bottom in (ours, theirs))
    return across * down / (both - across * down)


def photograph(file: object) -> Tensor:
    """A photograph as a batch: float32 (1, 3, height, width) in [0, 1]."""
    import numpy as np
    from PIL import Image

    pixels = np.array(Image.open(str(file)).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
