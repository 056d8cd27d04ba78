"""What the versions of YOLOv3 have in common: convolutions, heads, and how a grid of answers becomes priors.

Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement" (arXiv 1804.02767), section 2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jobs.common.detection import darknet_file
from service.errors import FieldError

SLOPE = 0.1  # of leaky ReLU below zero
LARGEST_LOGARITHM = 8.0  # of a box in units of its anchor, so that nothing overflows
MOST_CLASSES = 1000

Anchors = Sequence[tuple[int, int]]
"""widths and heights, in pixels of the frame"""


class Convolution(nn.Sequential):
    """A convolution with batch norm and leaky ReLU, which keeps the size of its input but for the stride."""

    def __init__(self, before: int, channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, channels, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels, eps=darknet_file.ROOT),
            nn.LeakyReLU(SLOPE),
        )


class Head(nn.Sequential):
    """From features to the answers of a grid: (batch, anchors x (4 + 1 + classes), rows, columns)."""

    def __init__(self, before: int, channels: int, anchors: int, classes: int) -> None:
        super().__init__(Convolution(before, channels), nn.Conv2d(channels, anchors * (5 + classes), 1))


def check_classes(classes: Sequence[str]) -> None:
    """FieldError unless there are some classes, each once."""
    if not 1 <= len(set(classes)) == len(classes) <= MOST_CLASSES:
        raise FieldError("classes", f"be 1 to {MOST_CLASSES:,} names, none twice", list(classes))


def decoded(grid: Tensor, anchors: Anchors, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Corners in pixels of the frame (batch, priors, 4), objectness (batch, priors), classes (batch, priors, classes).

    grid: (batch, anchors x (4 + 1 + classes), rows, columns). side: of the frame. All cells of the first anchor come
    first. Source: Redmon & Farhadi 2018, section 2.1.
    """
    batch, _, rows, columns = grid.shape
    grid = grid.view(batch, len(anchors), -1, rows, columns).permute(0, 1, 3, 4, 2)
    # (batch, anchors, rows, columns, 4 + 1 + classes)
    down, across = torch.meshgrid(
        torch.arange(rows, device=grid.device), torch.arange(columns, device=grid.device), indexing="ij"
    )
    stride = grid.new_tensor([side / columns, side / rows])
    centres = (torch.sigmoid(grid[..., :2]) + torch.stack([across, down], -1)) * stride
    sides = grid.new_tensor(anchors)[:, None, None] * grid[..., 2:4].clamp_max(LARGEST_LOGARITHM).exp()
    corners = torch.cat([centres - sides / 2, centres + sides / 2], -1)
    return corners.flatten(1, 3), grid[..., 4].flatten(1), torch.sigmoid(grid[..., 5:]).flatten(1, 3)
