"""Residual networks for CIFAR, with shortcuts and without.

Source: He et al. 2016, section 4.2, with a 1x1 convolution as the shortcut where the shape changes (their option B), as
in the code released with Li et al. 2018, which adds the twins without shortcuts and the wide ones.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from service.errors import FieldError

# basic blocks or bottlenecks in each of the four stages of the ImageNet networks (He et al. 2016, table 1)
LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4  # of a bottleneck's channels


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the image's size but for its stride."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    """ReLU(branch(x) + shortcut(x)); without a shortcut ReLU(branch(x)), or branch(x) alone for a bottleneck.

    branch: two 3x3 convolutions; of a bottleneck 1x1, 3x3 and 1x1. Batch norm follows every convolution.
    That a bottleneck without shortcut ends without ReLU is how the released networks are.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, bottleneck: bool, shortcut: bool) -> None:
        super().__init__()
        channels_out = channels * EXPANSION if bottleneck else channels
        widths = [(channels_in, channels, 1, 1), (channels, channels, 3, stride), (channels, channels_out, 1, 1)]
        layers = widths if bottleneck else [(channels_in, channels, 3, stride), (channels, channels, 3, 1)]
        parts: list[nn.Module] = []
        for before, after, kernel, step in layers:
            parts += [convolution(before, after, kernel, step), nn.BatchNorm2d(after), nn.ReLU()]
        self.branch = nn.Sequential(*parts[:-1])
        self.shortcut: nn.Module | None = nn.Identity() if shortcut else None
        if shortcut and (stride != 1 or channels_in != channels_out):
            self.shortcut = nn.Sequential(
                convolution(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out)
            )
        self.rectified = shortcut or not bottleneck

    def forward(self, features: Tensor) -> Tensor:
        after: Tensor = self.branch(features)
        if self.shortcut is not None:
            after = after + self.shortcut(features)
        return functional.relu(after) if self.rectified else after


class ResNet(nn.Module):
    """A 3x3 convolution, stages of residual blocks, the mean over all positions and a linear layer.

    Each stage after the first halves the image's side and doubles the channels, from `width` on.
    """

    def __init__(
        self, blocks: tuple[int, ...], width: int, bottleneck: bool, shortcuts: bool, classes: int, channels: int
    ) -> None:
        super().__init__()
        stem = convolution(channels, width, 3)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU())
        stages, now = [], width
        for stage, count in enumerate(blocks):
            inner, stage_blocks = width * 2**stage, []
            for index in range(count):
                stride = 2 if stage and not index else 1
                stage_blocks.append(ResidualBlock(now, inner, stride, bottleneck, shortcuts))
                now = inner * EXPANSION if bottleneck else inner
            stages.append(nn.Sequential(*stage_blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(now, classes)

    def released_layers(self) -> Iterator[str]:
        """The names of the layers in the code released with Li et al. 2018, in the order of this network's."""
        yield from ("conv1", "bn1")
        block: Any
        for stage, blocks in enumerate(self.stages, 1):
            for index, block in blocks.named_children():
                place = f"layer{stage}.{index}"
                for number in range(1, sum(isinstance(each, nn.Conv2d) for each in block.branch) + 1):
                    yield from (f"{place}.conv{number}", f"{place}.bn{number}")
                if isinstance(block.shortcut, nn.Sequential):
                    yield from (f"{place}.shortcut.0", f"{place}.shortcut.1")
        yield "linear"

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(images))  # (batch, channels, height, width)
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def initialise(network: nn.Module) -> None:
    """Kaiming-normal convolutions (fan in), linear weights of N(0, 0.001^2), biases of 0.

    Source: code released with Li et al. 2018.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1e-3)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def cifar_resnet(
    classes: int,
    channels: int,
    depth: int = 20,
    width: int = 1,
    shortcuts: bool = True,
    blocks: list[int] | tuple[int, ...] | None = None,
    first: int = 16,
    initialisation: str = "kaiming",
) -> nn.Module:
    """ResNet-`depth`, of depth 6n + 2: three stages of n blocks with 16, 32 and 64 times `width` channels.

    width: 1 gives the ResNets, k the networks WRN-depth-k of Li et al. 2018. blocks: other stages than these, such as
    (18,) for one stage of 18 blocks; then depth does not count. first: channels of the first stage, 16 in the paper.
    initialisation: "kaiming" as `initialise` does, or "torch" for its layers' own, with which deep networks without
    shortcuts train in fewer steps.
    """
    if initialisation not in ("kaiming", "torch"):
        raise FieldError("initialisation", "be kaiming or torch", initialisation)
    if blocks is None:
        if depth < 8 or (depth - 2) % 6:
            raise FieldError("depth", "be 6n + 2: 8, 14, 20, 26, …", depth)
        blocks = ((depth - 2) // 6,) * 3
    elif not blocks or min(blocks) < 1:
        raise FieldError("blocks", "be at least 1 in each stage", list(blocks))
    network = ResNet(tuple(blocks), first * width, False, shortcuts, classes, channels)
    if initialisation == "kaiming":
        initialise(network)
    return network


def stem_resnet(depth: int, classes: int, channels: int, width: int = 64, shortcuts: bool = True) -> nn.Module:
    """The four-stage ResNet-18/34/50/101/152 for images of 32x32: a 3x3 convolution and no pooling before the blocks.

    width: channels of the first stage. Source: code released with Li et al. 2018.
    """
    network = ResNet(LAYERS[depth], width, depth >= 50, shortcuts, classes, channels)
    initialise(network)
    return network
