"""Networks that segment images, by name: from images (batch, channels, height, width) in [0, 1], of any size, to logits
(batch, classes, height, width).

All take `classes`, `channels`, and one of two normalisations, as classifiers do. Stacked u-nets also take

    output_stride   32, 16 or 8: pixels between two features of the last stage. It changes no weight
    head            linear or degridding
    pooling         up or down: how odd sides are halved; the released code rounds down

Weights are drawn from torch's global generator, so fork and seed that to get the same network twice.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.architectures import build_network, check_colour, check_numbers
from jobs.common.models.classifiers.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalisation
from jobs.common.models.classifiers.sunet import OUTPUT_STRIDES, PLANS, Plan, StackedUNets
from jobs.stacked_unets.heads import HEADS, head
from jobs.stacked_unets.plain import PlainNet
from service.errors import FieldError, InputError


class Segmenter(nn.Module):
    """A network behind the normalisation of its inputs; its logits are brought to the size of the images.

    backbone: the name of the part of the network that classifiers have as well; all else is the head.
    """

    def __init__(self, normalise: nn.Module, network: nn.Module, backbone: str) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network
        self.backbone_prefix = f"network.{backbone}."
        """what the names of the weights of the backbone begin with"""

    def forward(self, images: Tensor) -> Tensor:
        """images (batch, channels, height, width) in [0, 1]. Returns logits (batch, classes, height, width)."""
        logits = self.network(self.normalise(images))
        return functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class SUNet(nn.Module):
    """A stacked u-net with a head."""

    def __init__(
        self, plan: Plan, classes: int, channels: int, output_stride: int, head_name: Any, pooling: Any
    ) -> None:
        super().__init__()
        self.backbone = StackedUNets(plan, channels, output_stride, pooling)
        self.head = head(head_name, self.backbone.channels, classes)

    def released_layers(self) -> Iterator[str]:
        """The names of the layers in the released code, in the order of this network's."""
        yield from (f"features.{name}" for name in self.backbone.released_layers())
        yield from (
            f"final.{name}" for name, layer in self.head.named_children() if any(True for _ in layer.parameters())
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


class OutOf(nn.Module):
    """One of torchvision's networks, whose backbones answer with a dictionary of features."""

    def __init__(self, network: Any, takes_all: bool) -> None:
        """takes_all: whether its classifier is given all features rather than the last."""
        super().__init__()
        self.backbone: nn.Module
        self.classifier: nn.Module
        self.backbone, self.classifier = network.backbone, network.classifier
        self._takes_all = takes_all

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        logits: Tensor = self.classifier(features if self._takes_all else features["out"])
        return logits


def _sunet(
    plan: Plan, classes: int, channels: int, output_stride: int = 16, head: str = "linear", pooling: str = "up"
) -> nn.Module:
    if output_stride not in OUTPUT_STRIDES:
        raise FieldError("output_stride", "be 32, 16 or 8", output_stride)
    if head not in HEADS:
        raise FieldError("head", f"be {' or '.join(HEADS)}", head)
    return SUNet(plan, classes, channels, output_stride, head, pooling)


def _torchvision(name: str, classes: int, channels: int) -> nn.Module:
    check_colour(channels, name)
    from torchvision.models import segmentation  # takes a second to load

    network = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes)
    return OutOf(network, takes_all=isinstance(network, segmentation.LRASPP))


def _segmentation_models(classes: int, channels: int, decoder: str = "Unet", encoder: str = "resnet18") -> nn.Module:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        package = "segmentation-models-pytorch"
        raise InputError(f"segmentation_models needs the package {package}", hint=f"pip install {package}") from error
    try:
        network: nn.Module = segmentation_models_pytorch.create_model(
            decoder, encoder, encoder_weights=None, in_channels=channels, classes=classes
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"segmentation_models: decoder {decoder!r} of encoder {encoder!r}: {error}") from error
    return network


def _architecture(
    build: Callable[..., nn.Module],
    backbone: str = "backbone",
    *,
    classes: int = 21,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    per_image: bool = False,
    **arguments: Any,
) -> Segmenter:
    """A network behind its normalisation. FieldError names an argument that is out of its range."""
    check_numbers(classes=classes, channels=channels, **arguments)
    normalise = normalisation(channels, mean, std, per_image)
    network = build(classes=classes, channels=channels, **arguments).to(memory_format=torch.channels_last)
    return Segmenter(normalise, network, backbone)


TORCHVISION = (
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    **{
        name: partial(_architecture, partial(_sunet, plan), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        for name, plan in PLANS.items()
    },
    **{
        name: partial(_architecture, partial(_torchvision, name), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        for name in TORCHVISION
    },
    "segmentation_models": partial(
        _architecture, _segmentation_models, backbone="encoder", mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    "plain": partial(_architecture, PlainNet, mean=IMAGENET_MEAN, std=IMAGENET_STD),
}


def segmenter(name: str, **arguments: Any) -> nn.Module:
    """Build a network by its name in ARCHITECTURES or by import path. InputError if its arguments are refused."""
    return build_network(name, ARCHITECTURES, "segmentation network", **arguments)
