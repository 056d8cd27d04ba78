"""Boxes: overlaps and covered shares against counted pixels."""

import torch
from torch import Tensor

from jobs.common.detection.boxes import covered, overlaps

STREAM = torch.Generator().manual_seed(0)


def boxes(count: int) -> Tensor:
    ends = torch.randint(0, 20, (count, 2, 2), generator=STREAM)
    return torch.cat([ends.amin(1), ends.amax(1)], 1).float()


def pixels(corners: Tensor) -> Tensor:
    """bool (n, 400): the pixels of a picture of 20 x 20 that are inside."""
    down, across = (each.flatten() + 0.5 for each in torch.meshgrid(*[torch.arange(20)] * 2, indexing="ij"))
    left, top, right, bottom = corners[:, :, None].unbind(1)
    return (across > left) & (across < right) & (down > top) & (down < bottom)


def test_shares_are_those_of_counted_pixels() -> None:
    ours, theirs = boxes(12), boxes(9)
    ours[0, 2:] = ours[0, :2]  # an empty one
    first, second = pixels(ours)[:, None], pixels(theirs)[None]
    common = (first & second).sum(2).float()
    expected = torch.where(first.any(2), common / first.sum(2).clamp_min(1), torch.zeros(()))
    assert torch.allclose(covered(ours, theirs), expected)
    assert torch.allclose(overlaps(ours, theirs), common / (first | second).sum(2).clamp_min(1))
