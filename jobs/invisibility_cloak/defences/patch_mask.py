"""A small network that finds patches pixel by pixel, and a mask of grey over what it finds.

Sources: Liu et al. 2022, "Segment and complete: defending object detectors against adversarial patch attacks with
robust patch detection" (CVPR): a U-Net trained on images with patches; Xu et al. 2023, "PatchZero: defending against
adversarial patch attacks by detecting and zeroing the patch" (WACV): pixels of the patch are replaced by the mean
colour. Their shape completion is a closing of gaps here, and patches to learn from are those of `training.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 8  # that sides are brought to a multiple of
FILL = 0.5


class PatchSegmenter(nn.Module):
    """Logits of belonging to a patch, by a U-Net of three levels, the first at half the resolution: 67,000 weights."""

    def __init__(self, width: int = 12) -> None:
        """width: channels of the first level; twice and four times as many below."""
        super().__init__()
        self.first = _block(12, width)  # of the colours of four pixels
        self.second = _block(width, 2 * width)
        self.third = _block(2 * width, 4 * width)
        self.up_second = _block(6 * width, 2 * width)
        self.up_first = _block(3 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, 3, height, width) in [0, 1]. Returns logits (batch, 1, height, width)."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, [0, -width % STRIDE, 0, -height % STRIDE], mode="replicate")
        first = self.first(functional.pixel_unshuffle(2 * padded - 1, 2))
        second = self.second(functional.max_pool2d(first, 2))
        third = self.third(functional.max_pool2d(second, 2))
        second = self.up_second(torch.cat([second, functional.interpolate(third, scale_factor=2.0)], 1))
        first = self.up_first(torch.cat([first, functional.interpolate(second, scale_factor=2.0)], 1))
        logits = functional.interpolate(self.head(first), scale_factor=2.0, mode="bilinear")
        return logits[..., :height, :width]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for each in (inputs, outputs):
        layers += [nn.Conv2d(each, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class PatchMask(nn.Module):
    """Grey over the pixels that a segmenter takes for a patch.

    Forward the mask is hard; backward it is the segmenter's probability (straight through, Bengio et al. 2013), so that
    an adaptive attack learns what is not masked.
    """

    def __init__(self, segmenter: PatchSegmenter, threshold: float, closing: int) -> None:
        """threshold: probability above which a pixel is masked. closing: width of gaps that are closed, in pixels."""
        super().__init__()
        self.segmenter, self.threshold, self.closing = segmenter, threshold, closing

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, 3, height, width) in [0, 1]. Returns the same shape."""
        soft = torch.sigmoid(self.segmenter(images))
        mask = self.mask(soft) + soft - soft.detach()
        return images + mask * (FILL - images)

    def mask(self, probabilities: Tensor) -> Tensor:
        """1 where a pixel is masked, else 0. probabilities: (batch, 1, height, width). Returns the same shape."""
        hard = (probabilities.detach() > self.threshold).to(probabilities)
        if not self.closing:
            return hard
        size, reach = 2 * self.closing + 1, self.closing
        grown = functional.max_pool2d(hard, size, 1, reach)
        return torch.maximum(hard, -functional.max_pool2d(-grown, size, 1, reach))
