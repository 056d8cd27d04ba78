"""Images of sizes that a network does not take, padded to the next that it does.

A network that halves its images several times and joins what it has at each size, as U-Nets do, takes only sides that
are multiples of a number. Padding is below and on the right, so that tiles, which begin at multiples of the largest
such number, lie as they would in the whole image.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.training.optimizers import device_of
from jobs.stacked_unets.tiles import ALIGNMENT

HEIGHT, WIDTH = 64, 96  # about that many pixels has an image that is tried
CHANNELS = 3


class Padded(nn.Module):
    """A network that takes sides of `multiple` pixels, for images of any size.

    An image whose sides are multiples is given to it as it is. Any other is continued by its last row and column, and
    the logits of these are cut off.
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network, self.multiple = network, multiple
        self.backbone_prefix = f"network.{getattr(network, 'backbone_prefix', '')}"

    def forward(self, images: Tensor) -> Tensor:
        """images (batch, channels, height, width). Returns logits (batch, classes, height, width)."""
        height, width = images.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if not (below or right):
            logits: Tensor = self.network(images)
            return logits
        logits = self.network(functional.pad(images, (0, right, 0, below), mode="replicate"))
        return logits[..., :height, :width]


def any_size(network: nn.Module, classes: int) -> nn.Module:
    """The network, padded to the least multiple that it takes: of 1, which needs no padding, 2, 4 and so on.

    It is tried in evaluation mode. A network that takes none of them comes back as it is.
    """
    network.eval()
    multiple = 1
    while multiple <= ALIGNMENT:
        height, width = ((side // multiple | 1) * multiple for side in (HEIGHT, WIDTH))  # of no larger power of 2
        if _takes(network, classes, height, width):
            return network if multiple == 1 else Padded(network, multiple)
        multiple *= 2
    return network


def multiple_of(network: nn.Module) -> int:
    """The multiple that the sides of images are padded to, in pixels."""
    return network.multiple if isinstance(network, Padded) else 1


def _takes(network: nn.Module, classes: int, height: int, width: int) -> bool:
    try:
        with torch.no_grad():
            logits = network(torch.zeros(1, CHANNELS, height, width, device=device_of(network)))
    except Exception:  # whatever a network of the user's own raises: `check_fit` says what
        return False
    return isinstance(logits, Tensor) and logits.shape == (1, classes, height, width)
