"""Image classifiers by name. Each maps images (batch, channels, height, width) in [0, 1] to logits (batch, classes).

All take `classes`, `channels`, and one of two normalisations, which is their first layer, so that attacks and endpoints
see pixels: `mean` and `std` of each channel, or `per_image`. What else a family takes, its module says. Weights are
drawn from torch's global generator, so fork and seed that to get the same network twice.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from jobs.common.models.architectures import build_network, check_numbers
from jobs.common.models.classifiers import imagenet, small
from jobs.common.models.classifiers.alexnet import alexnet
from jobs.common.models.classifiers.densenet import densenet121
from jobs.common.models.classifiers.fully_connected import fully_connected
from jobs.common.models.classifiers.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalisation
from jobs.common.models.classifiers.preactivation_resnet import preactivation_resnet18
from jobs.common.models.classifiers.quadratic import quadratic_regression
from jobs.common.models.classifiers.resnet import LAYERS, cifar_resnet, stem_resnet
from jobs.common.models.classifiers.sunet import SUNETS
from jobs.common.models.classifiers.vgg import vgg9, vgg13
from jobs.common.models.classifiers.wide_resnet import wide_resnet
from jobs.common.models.weights_file import load_weights


class Classifier(nn.Module):
    """A network behind the normalisation of its inputs."""

    def __init__(self, normalise: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """images (batch, channels, height, width) in [0, 1]. Returns logits (batch, classes)."""
        logits: Tensor = self.network(self.normalise(images))
        return logits


def _architecture(
    build: Callable[..., nn.Module],
    *,
    classes: int = 10,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    per_image: bool = False,
    **arguments: Any,
) -> Classifier:
    """A network of a family behind its normalisation. FieldError names an argument that is out of its range."""
    check_numbers(classes=classes, channels=channels, **arguments)
    normalise = normalisation(channels, mean, std, per_image)
    return Classifier(normalise, build(classes=classes, channels=channels, **arguments))


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    # CIFAR: colour images of 32x32
    "cifar_resnet": partial(_architecture, cifar_resnet),
    **{f"resnet{depth}": partial(_architecture, cifar_resnet, depth=depth) for depth in (20, 32, 44, 56, 110)},
    **{f"cifar_resnet{depth}": partial(_architecture, partial(stem_resnet, depth)) for depth in LAYERS},
    "preactivation_resnet18": partial(_architecture, preactivation_resnet18),
    "wide_resnet": partial(_architecture, wide_resnet, per_image=True),
    "alexnet": partial(_architecture, alexnet),
    "vgg9": partial(_architecture, vgg9),
    "vgg13": partial(_architecture, vgg13),
    "densenet121": partial(_architecture, densenet121),
    # ImageNet
    **{
        name: partial(_architecture, build, classes=1000, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        for name, build in (imagenet.RESNETS | SUNETS).items()
    },
    "inception_v3": partial(
        _architecture, imagenet.inception_v3, classes=1000, mean=imagenet.INCEPTION_MEAN, std=imagenet.INCEPTION_STD
    ),
    # small ones
    "digits_net": partial(_architecture, small.digits_net, channels=1),
    "digits_16_net": partial(_architecture, small.digits_16_net, channels=1),
    "softmax_regression": partial(_architecture, small.softmax_regression, channels=1),
    "mlp": partial(_architecture, small.mlp, channels=1),
    "fully_connected": partial(_architecture, fully_connected, channels=1),
    "quadratic_regression": partial(_architecture, quadratic_regression, channels=1),
    "stem_net": partial(_architecture, small.stem_net, channels=1),
    "fast_mnist": partial(_architecture, small.fast_mnist, channels=1),
    "madry_mnist": partial(_architecture, small.madry_mnist, channels=1),
    "trades_mnist": partial(_architecture, small.trades_mnist, channels=1),
    "colour_net": partial(_architecture, small.colour_net),
}


def published_inception_v3(weights: str) -> Classifier:
    """Inception-v3 with weights of torchvision, which are fetched if they are not there. weights: their name there."""
    normalise = normalisation(3, imagenet.INCEPTION_MEAN, imagenet.INCEPTION_STD, per_image=False)
    return Classifier(normalise, imagenet.published_inception_v3(weights))


def from_file(weights: str, name: str, **arguments: Any) -> nn.Module:
    """A classifier with weights of a safetensors file, for specs that take a network by import path.

    weights: its path. name, arguments: as of `classifier`. InputError as of `load_weights`.
    """
    network = classifier(name, **arguments)
    load_weights(network, Path(weights).expanduser())
    return network


def classifier(name: str, **arguments: Any) -> nn.Module:
    """Build a classifier by its name in ARCHITECTURES or by import path. InputError if its arguments are refused."""
    return build_network(name, ARCHITECTURES, "classifier", **arguments)
