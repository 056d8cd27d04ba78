"""VGG-9 and VGG-13 for CIFAR. Sources: code released with Li et al. 2018, and with Huang et al. 2020."""

from collections.abc import Iterator, Sequence

from torch import nn

from jobs.common.models.classifiers.resnet import initialise

# channels of each convolution, in units of the width; pooling after each stage
VGG9 = ((1, 1), (2, 2), (4, 4, 4))
VGG13 = ((1, 1), (2, 2), (4, 4), (8, 8), (8, 8))


class VGG(nn.Sequential):
    """Convolutions with batch norm, ReLU and pooling, flattened; linear layers."""

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
    features, now = _features(VGG9, channels, width)
    for _ in VGG9:
        side = -(-side // 2)
    hidden = 4 * width
    head = [nn.Linear(now * side**2, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    network = VGG(*features, nn.Flatten(), *head)
    initialise(network)
    return network


def vgg13(classes: int, channels: int, width: int = 64) -> nn.Module:
    """For images of 32x32: ten 3x3 convolutions with biases and batch norm, and one linear layer.

    width: channels of the first stage.
    """
    features, now = _features(VGG13, channels, width)
    return VGG(*features, nn.Flatten(), nn.Linear(now, classes))


def _features(stages: Sequence[Sequence[int]], channels: int, width: int) -> tuple[list[nn.Module], int]:
    """The layers of all stages, and the channels after the last."""
    layers: list[nn.Module] = []
    for stage in stages:
        for factor in stage:
            layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.BatchNorm2d(factor * width), nn.ReLU()]
            channels = factor * width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return layers, channels
