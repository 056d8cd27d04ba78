"""The AlexNet for CIFAR-10: convolutions, pooling and local response normalisation, then three linear layers.

Sources: Krizhevsky et al. 2012; the code of Shafahi et al. 2018, whose features poisons are crafted for.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LocalResponse(nn.Module):
    """Local response normalisation: x / (1 + alpha / width * sum of x^2 over `width` channels)^0.75.

    As a banded 1x1 convolution and two roots, faster than torch's own. Source: Krizhevsky et al. 2012, section 3.3.
    """

    band: Tensor

    def __init__(self, channels: int, width: int = 9, alpha: float = 1e-3) -> None:
        super().__init__()
        near = (torch.arange(channels)[:, None] - torch.arange(channels)).abs() <= width // 2
        self.register_buffer("band", (near * (alpha / width)).view(channels, channels, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        root = (1 + functional.conv2d(images.square(), self.band)).rsqrt()
        return images * root * root.sqrt()


def alexnet(classes: int, channels: int, side: int = 32) -> nn.Module:
    """192 features before the last linear layer. side: of the images, in pixels."""
    across = (side + 3) // 4  # two poolings, each rounding up
    return nn.Sequential(
        *(nn.Conv2d(channels, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), LocalResponse(64)),
        *(nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(), LocalResponse(64), nn.MaxPool2d(3, 2, padding=1)),
        nn.Flatten(),
        *(nn.Linear(64 * across**2, 384), nn.ReLU()),
        *(nn.Linear(384, 192), nn.ReLU()),
        nn.Linear(192, classes),
    )
