"""The network that a stacked u-net is measured against: plain residual blocks, at two resolutions.

Source of the blocks: He et al. 2016, "Identity Mappings in Deep Residual Networks". The tiny stacked u-net and this one
at its default width have about as many weights.
"""

from torch import Tensor, nn

from jobs.common.models.classifiers.preactivation_resnet import PreactivationBlock


class PlainNet(nn.Module):
    """A 3x3 convolution, `blocks` residual blocks at half the resolution and at a quarter each, a 1x1 convolution."""

    def __init__(self, classes: int, channels: int, width: int = 32, blocks: int = 2) -> None:
        """width: channels at half the resolution; twice as many at a quarter."""
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        before = width
        for after in (width, 2 * width):
            for index in range(blocks):
                parts.append(PreactivationBlock(before, after, 1 if index else 2))
                before = after
        self.backbone = nn.Sequential(*parts, nn.BatchNorm2d(before), nn.ReLU())
        self.head = nn.Conv2d(before, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits
