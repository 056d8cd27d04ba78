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
    before they are mixed, called with (m, 3) and with their numbers, int64 (m,), row by row.
    """
    _, height, width = patch.shape
    colours = patch.permute(1, 2, 0).reshape(-1, 3)  # (height x width, 3)
    limit = at.new_tensor([width - 1, height - 1])
    pixels = (at * (limit + 1) - 0.5).clamp(min=torch.zeros_like(limit), max=limit)
    low = pixels.floor()
    share, first = pixels - low, low.long()
    second = torch.minimum(first + 1, limit.long())
    mixed = torch.zeros(len(at), 3, dtype=patch.dtype, device=patch.device)
    for column, across in ((first[:, 0], 1 - share[:, 0]), (second[:, 0], share[:, 0])):
        for row, down in ((first[:, 1], 1 - share[:, 1]), (second[:, 1], share[:, 1])):
            numbers = row * width + column
            values = colours.index_select(0, numbers)
            mixed = mixed + (across * down)[:, None] * (values if change is None else change(values, numbers))
    return mixed
