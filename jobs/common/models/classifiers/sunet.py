"""Stacked U-Nets: a residual network whose blocks are small u-nets, each of which sees far and keeps the resolution.

Source: Shah, Ghosh, Davis & Goldstein 2018, "Stacked U-Nets: a no-frills approach to natural image segmentation", and
the code released with it. Every convolution has a bias and, but for the first, batch norm and ReLU before it.

Dilation (Yu & Koltun 2016; "multigrid": Chen et al. 2017) takes the place of strides in the last stages where features
of a higher resolution are wanted. It changes no weight: nets of all output strides have one state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.errors import FieldError

OUTPUT_STRIDES = (32, 16, 8)
"""pixels of the image between two features of the last stage"""


class ActiveConvolution(nn.Sequential):
    """Batch norm, ReLU, convolution."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        convolution = nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation)
        super().__init__(nn.BatchNorm2d(channels_in), nn.ReLU(inplace=True), convolution)


class Up(nn.Module):
    """The way up of one level: a transposed convolution to the size that the way down began with, and a convolution."""

    def __init__(self, channels_in: int, inner: int, dilation: int) -> None:
        """dilation: 0 if the way down has stride 2."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        stride, spread = (1, 2 * dilation) if dilation else (2, 1)
        self.transposed = nn.ConvTranspose2d(channels_in, inner, 3, stride, spread, dilation=spread)
        self.convolution = ActiveConvolution(inner, inner, 3, dilation=dilation or 1)

    def forward(self, features: Tensor, size: list[int]) -> Tensor:
        """size: height and width of what is returned."""
        # computed from the skip: an image may have any size
        larger = self.transposed(functional.relu(self.norm(features), inplace=True), output_size=size)
        after: Tensor = self.convolution(larger)
        return after


class UNet(nn.Module):
    """Down `levels` times and up again, with a skip between two levels; of activated features, of the same size."""

    def __init__(self, channels_in: int, channels: int, inner: int, levels: int, dilation: int) -> None:
        """inner: channels within. dilation: of the first level, twice as much in each one below; 0: stride 2."""
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, inner, 1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            spread = dilation * 2**level
            stride, first, second = (1, spread, 2 * spread) if dilation else (2, 1, 1)
            self.down.append(
                nn.Sequential(
                    ActiveConvolution(inner, inner, 3, stride, dilation=first),
                    ActiveConvolution(inner, inner, 3, dilation=second),
                )
            )
            self.up.append(Up(inner if level == levels - 1 else 2 * inner, inner, spread))
        self.expand = ActiveConvolution(inner, channels, 1)

    def forward(self, active: Tensor) -> Tensor:
        """active: (batch, channels_in, height, width). Returns (batch, channels, height, width)."""
        features = self.reduce(active)
        # each level, with features of its size; those of the first, read by one layer alone, can be fused with it
        entered = [active]
        for down in self.down:
            features = down(features)
            entered.append(features)
        for level in reversed(range(len(self.up))):
            features = self.up[level](features, entered[level].shape[-2:])
            if level:
                features = torch.cat([features, entered[level]], dim=1)
        after: Tensor = self.expand(features)
        return after


class UNetModule(nn.Module):
    """What a u-net adds to the features; where their number changes, to a 1x1 convolution of them."""

    def __init__(self, channels_in: int, channels: int, inner: int, levels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.shortcut = None if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        self.unet = UNet(channels_in, channels, inner, levels, dilation)

    def forward(self, features: Tensor) -> Tensor:
        active = functional.relu(self.norm(features), inplace=True)
        kept = features if self.shortcut is None else self.shortcut(active)
        after: Tensor = self.unet(active)
        after += kept  # in place, as what follows a batch norm: moving memory costs as much as some convolutions
        return after


class DownBlock(nn.Module):
    """The residual block between the first convolution and the stages: half the resolution."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, 2)
        self.reduce = nn.Conv2d(channels_in, channels, 3, 2, 1)
        self.convolution = ActiveConvolution(channels, channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        active = functional.relu(self.norm(features), inplace=True)
        after: Tensor = self.convolution(self.reduce(active))
        after += self.shortcut(active)
        return after


@dataclass(frozen=True)
class Plan:
    """What sets one stacked u-net apart from another."""

    inner: int
    """channels within each u-net"""
    modules: tuple[int, ...]
    """u-nets of each stage"""
    widths: tuple[int, ...]
    """channels of each stage"""
    stem: tuple[int, int, int] = (64, 7, 2)
    """channels, kernel and stride of the first convolution"""
    width: int = 128
    """channels before the first stage"""


PLANS = {
    "sunet64": Plan(64, (2, 4, 4, 1), (256, 512, 768, 1024)),
    "sunet128": Plan(128, (2, 4, 4, 1), (512, 1024, 1536, 2048)),
    "sunet7_128": Plan(128, (2, 7, 7, 1), (512, 1280, 2048, 2304)),
    # for images of 64x64: the first convolution keeps the size, so all strides are half of what they are called
    "sunet_tiny": Plan(16, (1, 2, 2, 1), (64, 96, 128, 128), stem=(16, 5, 1), width=32),
}


class StackedUNets(nn.Module):
    """The features of a stacked u-net, activated: (batch, `channels`, height / stride, width / stride)."""

    def __init__(
        self, plan: Plan, channels: int = 3, output_stride: int = 32, pooling: Literal["up", "down"] = "up"
    ) -> None:
        """channels: of the images. output_stride: one of OUTPUT_STRIDES. pooling: how odd sides are halved.

        The released code rounds down, which leaves out the last row or column; where all sides are even, there is no
        difference. FieldError if pooling is neither.
        """
        super().__init__()
        width, kernel, stride = plan.stem
        self.stem = nn.Conv2d(channels, width, kernel, stride, kernel // 2)
        self.block = DownBlock(width, plan.width)
        self.stages = nn.ModuleList()
        if pooling not in ("up", "down"):
            raise FieldError("pooling", "be up or down", pooling)
        self._rounds_up = pooling == "up"
        strided = len(plan.modules) - 1 - OUTPUT_STRIDES.index(output_stride)  # the last stage that is
        self._pooled = range(strided)
        before = plan.width
        for stage, (count, after) in enumerate(zip(plan.modules, plan.widths, strict=True)):
            levels = 1 if stage == len(plan.modules) - 1 else 2
            dilation = 2 * max(stage - strided, 0)
            sizes = [before] + [after] * count
            modules = [UNetModule(*each, plan.inner, levels, dilation) for each in pairwise(sizes)]
            self.stages.append(nn.Sequential(*modules))
            before = after
        self.norm = nn.BatchNorm2d(before)
        self.channels = before
        for layer in self.modules():
            initialise(layer)

    def released_layers(self) -> Iterator[str]:
        """The names of the layers in the released code, in the order of this network's."""
        yield "conv1"
        yield from (f"residual1.{name}" for name in ("bn.0", "shortcut.0", "conv.0", "conv.2", "conv.4"))
        module: Any
        for stage, modules in enumerate(self.stages, 1):
            for index, module in modules.named_children():
                place = f"unet{stage}_{index}"
                if module.shortcut is None:
                    yield f"{place}.down.0.bn0"
                else:
                    yield from (f"{place}.bn.bn0", f"{place}.upsample.conv0")
                yield f"{place}.down.0.conv0"
                for level in range(len(module.unet.down)):
                    yield from (f"{place}.down.{level}.{name}" for name in ("bn1", "conv1", "bn2", "conv2"))
                for level in range(len(module.unet.up)):
                    yield from (f"{place}.up.{level}.{name}" for name in ("bn0", "deconv0", "bn1", "deconv1"))
                yield from (f"{place}.up.0.bn2", f"{place}.up.0.conv2")
        yield "bn2"

    def forward(self, images: Tensor) -> Tensor:
        features = self.block(self.stem(images))
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index in self._pooled:
                features = functional.avg_pool2d(features, 2, ceil_mode=self._rounds_up)
        return functional.relu(self.norm(features), inplace=True)


class SUNetClassifier(nn.Module):
    """The mean of the features over the image, and a linear layer."""

    def __init__(self, plan: Plan, classes: int, channels: int, pooling: Literal["up", "down"]) -> None:
        super().__init__()
        self.backbone = StackedUNets(plan, channels, pooling=pooling)
        self.linear = nn.Linear(self.backbone.channels, classes)

    def released_layers(self) -> Iterator[str]:
        """The names of the layers in the released code, in the order of this network's."""
        yield from (f"features.{name}" for name in self.backbone.released_layers())
        yield "linear"

    def forward(self, images: Tensor) -> Tensor:
        """images (batch, channels, height, width). Returns logits (batch, classes)."""
        logits: Tensor = self.linear(self.backbone(images).mean((2, 3)))
        return logits


def initialise(layer: nn.Module) -> None:
    """Weights of a convolution as He et al. 2015 draw them, by the fan out; no bias. Other layers stay as they are."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _classifier(plan: Plan, classes: int, channels: int, pooling: Literal["up", "down"] = "up") -> nn.Module:
    return SUNetClassifier(plan, classes, channels, pooling).to(memory_format=torch.channels_last)


SUNETS = {name: partial(_classifier, plan) for name, plan in PLANS.items()}
