"""VGG-9 for CIFAR. Source: code released with Li et al. 2018."""

from collections.abc import Iterator

from torch import nn

from jobs.common.models.classifiers.resnet import initialise

STAGES = ((1, 1), (2, 2), (4, 4, 4))  # channels of each convolution, in units of the width; pooling after each stage


class VGG(nn.Sequential):
    """Convolutions with batch norm, ReLU and pooling, flattened; two linear layers."""

    def released_layers(self) -> Iterator[str]:
        """The names of the layers in the code released with Li et al. 2018, in the order of this network's."""
        flatten = next(index for index, layer in enumerate(self) if isinstance(layer, nn.Flatten))
        for index, layer in enumerate(self):
            if layer is self[-1]:
                yield "classifier"
            elif any(True for _ in layer.parameters()):
                yield f"features.{index}" if index < flatten else f"fc.{index - flatten - 1}"


def vgg9(classes: int, channels: int, width: int = 64, side: int = 32) -> nn.Module:
    """Seven 3x3 convolutions and two linear layers, with biases and batch norm.

    width: channels of the first stage. side: of the square images, in pixels.
    """
    parts: list[nn.Module] = []
    now = channels
    for stage in STAGES:
        for factor in stage:
            parts += [nn.Conv2d(now, factor * width, 3, padding=1), nn.BatchNorm2d(factor * width), nn.ReLU()]
            now = factor * width
        parts.append(nn.MaxPool2d(2, ceil_mode=True))
        side = -(-side // 2)
    hidden = 4 * width
    head = [nn.Linear(now * side**2, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    network = VGG(*parts, nn.Flatten(), *head)
    initialise(network)
    return network
