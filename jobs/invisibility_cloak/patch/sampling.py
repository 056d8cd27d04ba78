"""Values of a patch between its pixels, and how much of a place it covers."""

from collections.abc import Callable

import torch
from torch import Tensor


def coverage(at: Tensor, height: int, width: int) -> Tensor:
    """How much of a place a patch covers, in [0, 1]: a patch of ones, bilinear, between zeros.

    at: (2, m), x and y in [0, 1] from the upper left corner of the patch to the lower right one. Returns (m,).
    """
    sides = at.new_tensor([[width], [height]])
    pixels = at * sides - 0.5  # of a pixel's centre its number
    inside = torch.minimum(pixels + 1, sides - pixels).clamp(0, 1)
    return inside[0] * inside[1]


def bilinear(patch: Tensor, at: Tensor, change: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """Colours of a patch at places of it, (3, m); beyond its border those of the border.

    patch: (3, height, width); the gradient reaches it. at: (2, m) as in `coverage`. change: of the colours of pixels
    before they are mixed, called with (3, 4, m) and with their numbers, int64 (4, m), row by row.
    """
    _, height, width = patch.shape
    limit = at.new_tensor([[width - 1], [height - 1]])
    pixels = torch.minimum((at * (limit + 1) - 0.5).clamp_min(0), limit)
    low = pixels.floor()
    (across, down), first = pixels - low, low.long()
    second = torch.minimum(first + 1, limit.long())
    # upper left, upper right, lower left, lower right, all in one look
    numbers = torch.stack([row[1] * width + column[0] for row in (first, second) for column in (first, second)])
    weights = torch.stack([up * side for up in (1 - down, down) for side in (1 - across, across)])
    # in one row: the way back along rows would be slow
    places = numbers.flatten() + (height * width) * torch.arange(3, device=at.device)[:, None]
    values = patch.flatten().index_select(0, places.flatten()).view(3, 4, -1)
    return (weights * (values if change is None else change(values, numbers))).sum(1)
