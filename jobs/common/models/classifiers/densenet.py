"""DenseNet-121 in its form for CIFAR. Source: Huang et al. 2017, with the layers of the code of Li et al. 2018."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from jobs.common.models.classifiers.resnet import convolution, initialise

BLOCKS = (6, 12, 24, 16)
BOTTLENECK = 4  # channels between a layer's two convolutions, in units of the growth


class DenseLayer(nn.Module):
    """What it makes of its input, followed by the input: `growth` more channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.branch = nn.Sequential(
            *(nn.BatchNorm2d(channels), nn.ReLU(), convolution(channels, inner, 1)),
            *(nn.BatchNorm2d(inner), nn.ReLU(), convolution(inner, growth, 3)),
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.branch(features), features], dim=1)


class DenseNet(nn.Sequential):
    """A stem, the layers of BLOCKS with transitions between, and a head."""

    def released_layers(self) -> Iterator[str]:
        """The names of the layers in the code released with Li et al. 2018, in the order of this network's."""
        yield "conv1"
        for block, layers in enumerate(BLOCKS, 1):
            if block > 1:
                yield from (f"trans{block - 1}.bn", f"trans{block - 1}.conv")
            for layer in range(layers):
                yield from (f"dense{block}.{layer}.{name}" for name in ("bn1", "conv1", "bn2", "conv2"))
        yield from ("bn", "linear")


def densenet121(classes: int, channels: int, width: int = 32) -> nn.Module:
    """DenseNet-121 with a 3x3 stem, transitions that halve channels and side, and the mean over all positions.

    width: the growth, channels that each layer adds.
    """
    now = 2 * width
    parts: list[nn.Module] = [convolution(channels, now, 3)]
    for index, layers in enumerate(BLOCKS):
        if index:
            parts += [nn.BatchNorm2d(now), nn.ReLU(), convolution(now, now // 2, 1), nn.AvgPool2d(2)]
            now //= 2
        for _ in range(layers):
            parts.append(DenseLayer(now, width))
            now += width
    head = [nn.BatchNorm2d(now), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(now, classes)]
    network = DenseNet(*parts, *head)
    initialise(network)
    return network
