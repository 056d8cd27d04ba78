"""The boxes that a patch is drawn on, and those that it is not drawn on, counted by the reason."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.detection.boxes import Boxes

REASONS = ("without size", "too small", "outside", "beyond the limit")


@dataclass(frozen=True)
class Targets:
    """Boxes of a batch of images, in the order in which patches are drawn: later ones cover earlier ones."""

    corners: Tensor
    """float32 (boxes, 4): left, top, right, bottom, in pixels"""
    images: Tensor
    """int64 (boxes,): the image of each"""
    skipped: tuple[int, ...]
    """boxes of the class without a patch, by the reason: as REASONS"""

    def __len__(self) -> int:
        return len(self.images)


def targets_of(
    boxes: Sequence[Boxes],
    label: int,
    size: tuple[int, int],
    smallest: float = 10.0,
    most: int = 200,
    generator: torch.Generator | None = None,
) -> Targets:
    """The boxes of one class that patches are drawn on.

    boxes: of each image. size: of the images, (height, width). smallest: least diagonal of a box, in pixels: below it
    a patch has about two pixels, and no gradient. most: boxes of an image; which of more is drawn by the generator,
    without one the first ones are. What is skipped is counted under the first reason that holds.
    """
    own = [each.corners[each.labels == label] for each in boxes]
    corners = torch.cat([*own, torch.empty(0, 4)]).float()
    counts = torch.tensor([len(each) for each in own], dtype=torch.int64)
    images = torch.repeat_interleave(torch.arange(len(own)), counts)
    widths, heights = (corners[:, 2] - corners[:, 0]), (corners[:, 3] - corners[:, 1])
    height, width = size
    empty = ~corners.isfinite().all(1) | (widths <= 0) | (heights <= 0)
    small = torch.hypot(widths, heights) < smallest
    outside = (corners[:, 2] <= 0) | (corners[:, 3] <= 0) | (corners[:, 0] >= width) | (corners[:, 1] >= height)
    usable = ~(empty | small | outside)
    beyond = torch.zeros_like(usable)
    beyond[usable] = _ranks(images[usable], generator) >= most
    reasons = (empty, small & ~empty, outside & ~small & ~empty, beyond)
    kept = usable & ~beyond
    return Targets(corners[kept], images[kept], tuple(int(each.sum()) for each in reasons))


def _ranks(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """The place of each box among those of its image, in their order or in a drawn one: int64 (boxes,)."""
    keys = torch.arange(len(images)) if generator is None else torch.randperm(len(images), generator=generator)
    order = torch.argsort(images * len(images) + keys)
    starts = torch.searchsorted(images, images)  # images ascend
    ranks = torch.empty_like(images)
    ranks[order] = torch.arange(len(images)) - starts[order]
    return ranks
