"""The wide residual network WRN-32-10 of Madry et al. 2018 and Shafahi et al. 2019, as their TensorFlow code has it.

It differs from what PyTorch code calls WRN-32-10: leaky ReLU, shortcuts without weights, TensorFlow's padding, and
another batch norm. With depth 20 and width 1 it is the network of Huang et al. 2020, "Understanding Generalization
through Visualizations".
"""

import math

from torch import Tensor, nn
from torch.nn import functional

from service.errors import FieldError, InputError

SLOPE = 0.1  # of the leaky ReLU
STEM = 16  # channels after the first convolution


class SameConvolution(nn.Conv2d):
    """A 3x3 convolution without bias, padded as TensorFlow's SAME is: what is odd goes to the bottom and to the right.

    For stride 2 and an even side that is no padding at the top and the left, where padding=1 has one pixel.
    Weights are drawn from N(0, 2 / (9 channels_out)).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, 3, stride, bias=False)
        nn.init.normal_(self.weight, std=math.sqrt(2 / (9 * channels_out)))

    def forward(self, features: Tensor) -> Tensor:
        top, bottom = self._padding(features.shape[2])
        left, right = self._padding(features.shape[3])
        return super().forward(functional.pad(features, (left, right, top, bottom)))

    def _padding(self, side: int) -> tuple[int, int]:
        stride = self.stride[0]
        total = max((math.ceil(side / stride) - 1) * stride + 3 - side, 0)
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


class WideUnit(nn.Module):
    """Batch norm and leaky ReLU before each of two convolutions, added to the shortcut.

    The shortcut is the raw input, or the activated one in the first unit of all (`shared`). Where channels are added it
    is pooled by its stride and padded with zero channels, half of them on each side.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, shared: bool) -> None:
        super().__init__()
        self.norm1 = _norm(channels_in)
        self.conv1 = SameConvolution(channels_in, channels, stride)
        self.norm2 = _norm(channels)
        self.conv2 = SameConvolution(channels, channels)
        self.stride, self.shared, self.added = stride, shared, (channels - channels_in) // 2

    def forward(self, features: Tensor) -> Tensor:
        active = functional.leaky_relu(self.norm1(features), SLOPE)
        after: Tensor = self.conv2(functional.leaky_relu(self.norm2(self.conv1(active)), SLOPE))
        shortcut = active if self.shared else features
        if self.added:
            shortcut = functional.avg_pool2d(shortcut, self.stride)
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.added, self.added))
        return after + shortcut


class WideResNet(nn.Module):
    """Three stages of units with 16, 32 and 64 times `width` channels. The side of the images is a multiple of 4."""

    def __init__(self, units: int, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = SameConvolution(channels, STEM)
        parts: list[nn.Module] = []
        now = STEM
        for stage in range(3):
            for index in range(units):
                stride = 2 if stage and not index else 1
                parts.append(WideUnit(now, STEM * width * 2**stage, stride, shared=not parts))
                now = STEM * width * 2**stage
        self.units = nn.Sequential(*parts)
        self.norm = _norm(now)
        self.head = nn.Linear(now, classes)
        bound = math.sqrt(3 / now)
        nn.init.uniform_(self.head.weight, -bound, bound)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2] % 4 or images.shape[3] % 4:
            size = f"{images.shape[2]}x{images.shape[3]}"
            raise InputError(f"sides of images must be multiples of 4 for a wide_resnet; they are {size}")
        features: Tensor = functional.leaky_relu(self.norm(self.units(self.stem(images))), SLOPE)
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def wide_resnet(classes: int, channels: int, depth: int = 32, width: int = 10) -> nn.Module:
    """WRN-`depth`-`width`, of depth 6n + 2: three stages of n units."""
    if depth < 8 or (depth - 2) % 6:
        raise FieldError("depth", "be 6n + 2: 8, 14, 20, 26, 32, …", depth)
    return WideResNet((depth - 2) // 6, width, classes, channels)
