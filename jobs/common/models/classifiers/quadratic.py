"""A linear model of pixels and of products of two pixels: no hidden layer, as many weights as a network.

Source: Huang et al. 2020, figure 2, released code: 3,072 pixels of 32x32 and the 295,296 products of 16x16 ones.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.errors import FieldError


class Quadratic(nn.Module):
    """Linear in the pixels and in all products of two pixels of a smaller copy of the image, squares among them."""

    rows: Tensor
    columns: Tensor

    def __init__(self, classes: int, channels: int, side: int, small: int) -> None:
        super().__init__()
        pixels = channels * small**2
        self.small = small
        self.features = channels * side**2 + pixels * (pixels + 1) // 2
        """that the output is linear in"""
        self.linear = nn.Linear(self.features, classes)
        rows, columns = torch.triu_indices(pixels, pixels)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, side, side) -> logits (batch, classes)."""
        copy = images
        if images.shape[-1] != self.small:
            copy = functional.interpolate(images, size=self.small, mode="bilinear", align_corners=False, antialias=True)
        flat = copy.flatten(1)
        products = flat[:, self.rows] * flat[:, self.columns]
        logits: Tensor = self.linear(torch.cat([images.flatten(1), products], dim=1))
        return logits


def quadratic_regression(classes: int, channels: int, side: int = 8, small: int = 8) -> nn.Module:
    """side: of the images, small: of the copies whose products are taken, in pixels."""
    if small > side:
        raise FieldError("small", f"be at most {side}, the side of the images", small)
    if channels * small**2 > 1 << 10:
        raise FieldError("small", "be so small that copies have at most 1,024 numbers", small)
    return Quadratic(classes, channels, side, small)
