"""The pre-activation ResNet-18 that "Fast is better than free" trains.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks"; the form for 32x32 images of the code released
with Wong et al. 2020: batch norm and ReLU before the mean, and shortcuts of 1x1 convolutions without batch norm.
"""

from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.classifiers.resnet import LAYERS, convolution


class PreactivationBlock(nn.Module):
    """Batch norm and ReLU come before each of two 3x3 convolutions.

    The shortcut is the raw input; where the shape changes it is a convolution of the activated input.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = convolution(channels_in, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        changes = stride != 1 or channels_in != channels
        self.shortcut = convolution(channels_in, channels, 1, stride) if changes else None

    def forward(self, features: Tensor) -> Tensor:
        active = functional.relu(self.norm1(features))
        shortcut = features if self.shortcut is None else self.shortcut(active)
        after: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return after + shortcut


def preactivation_resnet18(classes: int, channels: int, width: int = 64) -> nn.Module:
    """Pre-activation ResNet-18; its stages have 1, 2, 4 and 8 times `width` channels. Any image size."""
    parts: list[nn.Module] = [convolution(channels, width, 3)]
    now = width
    for stage, count in enumerate(LAYERS[18]):
        for index in range(count):
            parts.append(PreactivationBlock(now, width * 2**stage, 2 if stage and not index else 1))
            now = width * 2**stage
    head = [nn.BatchNorm2d(now), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(now, classes)]
    return nn.Sequential(*parts, *head)
