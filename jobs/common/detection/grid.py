"""Detectors that learn here: a convolutional body, and in each cell of its grid one or more priors with objectness."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.letterbox import letterbox
from service.errors import FieldError

REFERENCE = 96  # side of the frame that anchors are given for
LARGEST_LOGARITHM = 4.0  # of a box in units of its anchor, either way
RARE = 0.01  # the share of priors that hold something, which objectness begins with (Lin et al. 2017, section 3.3)
MOST_ANCHORS, LARGEST_SIDE = 32, 2048

Anchors = Sequence[Sequence[float]]


class GridDetector(Detector):
    """Priors: all cells of the first anchor, row by row, then those of the next.

    `network` maps frames (batch, 3, side, side) to (batch, anchors x (4 + 1 + classes), rows, columns): the offset of
    the centre from that of the cell in strides, the logarithm of the sides in units of the anchor's, objectness, and
    one logit for each class. An anchor is a width and a height in pixels of the frame.
    """

    substitute = None
    side: int
    anchors: Tensor

    def __init__(
        self,
        name: str,
        body: nn.Module,
        channels: int,
        stride: int,
        classes: Sequence[str],
        side: int,
        anchors: Anchors,
    ) -> None:
        """body: from frames to features (batch, channels, side / stride, side / stride). FieldError."""
        check(classes, side, stride, anchors)
        super().__init__()
        self.name, self.classes, self.stride, self.side = name, tuple(classes), stride, side
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32), persistent=False)
        head = nn.Conv2d(channels, len(anchors) * (5 + len(classes)), 1)
        nn.init.normal_(head.weight, std=0.01)
        assert head.bias is not None
        with torch.no_grad():
            head.bias.zero_().view(len(anchors), -1)[:, 4] = math.log(RARE / (1 - RARE))
        # in this order of memory a CPU convolves twice as fast
        self.network = nn.Sequential(body, head).to(memory_format=torch.channels_last)

    def priors(self, images: Tensor) -> Priors:
        frames, placement = letterbox(images, self.side, self.side)
        outputs = self.outputs(frames)
        return Priors(
            placement.back(self.decoded(outputs[..., :4]).flatten(1, 3)),
            outputs[..., 4].flatten(1),
            functional.softmax(outputs[..., 5:], -1).flatten(1, 3),
        )

    def first_layers(self) -> nn.Sequential | None:
        body = self.network[0]
        return body if type(body) is nn.Sequential else None

    def outputs(self, frames: Tensor) -> Tensor:
        """frames: (batch, 3, side, side). Returns float32 (batch, anchors, rows, columns, 4 + 1 + classes)."""
        grid: Tensor = self.network(frames)
        grid = grid.float()  # also where the network computes in half precision
        return grid.view(len(grid), len(self.anchors), -1, *grid.shape[2:]).permute(0, 1, 3, 4, 2)

    def decoded(self, offsets: Tensor) -> Tensor:
        """Corners in pixels of the frame, of offsets: both (batch, anchors, rows, columns, 4)."""
        rows, columns = offsets.shape[2:4]
        down, across = torch.meshgrid(
            torch.arange(rows, device=offsets.device), torch.arange(columns, device=offsets.device), indexing="ij"
        )
        centres = (torch.stack([across, down], -1) + 0.5 + offsets[..., :2]) * self.stride
        sides = self.anchors[:, None, None] * offsets[..., 2:].clamp(-LARGEST_LOGARITHM, LARGEST_LOGARITHM).exp()
        return torch.cat([centres - sides / 2, centres + sides / 2], -1)

    def encoded(self, corners: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The cell of each box, and what a prior of that cell has to answer to stand for it: undoes `decoded`.

        corners: (n, 4) in pixels of the frame. anchors: int64 (n,). Returns rows and columns, int64 (n,) each, and
        offsets (n, 4). A centre outside the frame belongs to the nearest cell.
        """
        last = self.side // self.stride - 1
        centres = (corners[:, :2] + corners[:, 2:]) / (2 * self.stride)
        cells = centres.floor().long().clamp(0, last)
        sides = (corners[:, 2:] - corners[:, :2]).clamp_min(1e-3)
        logarithms = (sides / self.anchors[anchors]).log().clamp(-LARGEST_LOGARITHM, LARGEST_LOGARITHM)
        return cells[:, 1], cells[:, 0], torch.cat([centres - cells - 0.5, logarithms], 1)


def in_proportion(anchors: Anchors, side: int) -> list[list[float]]:
    """Anchors for a frame of any side, of those for one of 96 pixels."""
    return [[each * side / REFERENCE for each in anchor] for anchor in anchors]


def check(classes: Sequence[str], side: int, stride: int, anchors: Anchors) -> None:
    """FieldError names what is out of its range: a stranger's card may say anything."""
    if not 1 <= len(classes) <= 1000 or len(set(classes)) != len(classes):
        raise FieldError("classes", "be 1 to 1,000 names, none twice", list(classes))
    if not stride <= side <= LARGEST_SIDE or side % stride:
        raise FieldError("side", f"be a multiple of {stride} up to {LARGEST_SIDE:,}", side)
    if not 1 <= len(anchors) <= MOST_ANCHORS:
        raise FieldError("anchors", f"be 1 to {MOST_ANCHORS} pairs of a width and a height", list(anchors))
    for anchor in anchors:
        if len(anchor) != 2 or not all(0 < each <= LARGEST_SIDE for each in anchor):
            raise FieldError("anchors", f"be pairs of a width and a height above 0, up to {LARGEST_SIDE:,}", anchor)
