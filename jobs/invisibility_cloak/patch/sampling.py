"""Values of a patch between its pixels, and how much of a place it covers."""

from collections.abc import Callable

import torch
from torch import Tensor


def coverage(at: Tensor, height: int, width: int) -> Tensor:
    """How much of a place a patch covers, in [0, 1]: a patch of ones, bilinear, between zeros.

    at: (m, 2), x and y in [0, 1] from the upper left corner of the patch to the lower right one. Returns (m,).
    """
    pixels = at * at.new_tensor([width, height]) - 0.5  # of a pixel's centre its number
    inside = torch.minimum(pixels + 1, at.new_tensor([width, height]) - pixels).clamp(0, 1)
    return inside.prod(1)


def bilinear(patch: Tensor, at: Tensor, change: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """Colours of a patch at places of it, (m, 3); beyond its border those of the border.

    patch: (3, height, width); the gradient reaches it. at: (m, 2) as in `coverage`. change: of the colours of pixels
    before they are mixed, called with (4, m, 3) and with their numbers, int64 (4, m), row by row.
    """
    _, height, width = patch.shape
    colours = patch.flatten(1).T.contiguous()  # (height x width, 3)
    limit = at.new_tensor([width - 1, height - 1])
    pixels = (at * (limit + 1) - 0.5).clamp(min=torch.zeros_like(limit), max=limit)
    low = pixels.floor()
    (across, down), first = (pixels - low).unbind(1), low.long()
    second = torch.minimum(first + 1, limit.long())
    # upper left, upper right, lower left, lower right, all in one look
    numbers = torch.stack([
        row[:, 1] * width + column[:, 0] for row in (first, second) for column in (first, second)
    ])  # fmt: skip
    weights = torch.stack([up * side for up in (1 - down, down) for side in (1 - across, across)])
    values = colours.index_select(0, numbers.flatten()).view(4, -1, 3)
    return (weights[..., None] * (values if change is None else change(values, numbers))).sum(0)
