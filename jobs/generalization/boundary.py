"""What a network says of the plane: the probabilities of the classes on a grid over the frame of its points."""

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.data.images.plane_points import SHAPE
from jobs.common.passes import outputs
from service.errors import FieldError

PART = 1 << 16  # points at once on a CPU


def check_points(images: ImageSet, field: str) -> None:
    """FieldError unless the images are points of the plane. field: what needs them."""
    if images.shape != SHAPE:
        raise FieldError(field, "be left out where images are no points of the plane", f"given for {images.name}")


def probabilities(network: nn.Module, steps: int) -> Tensor:
    """Of each class at each point of a grid, on the CPU: float32 (classes, steps, steps), from the lower left.

    network: in evaluation mode; it takes points as images of one pixel. The grid is the frame of the data.
    """
    side = torch.linspace(0, 1, steps)
    y, x = torch.meshgrid(side, side, indexing="ij")
    points = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1).view(-1, *SHAPE)
    return outputs(network, points, lambda logits: logits.softmax(1), on_cpu=PART).T.reshape(-1, steps, steps)
