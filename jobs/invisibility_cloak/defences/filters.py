"""Filters that spoil the fine patterns of patches, and of everything else: they need no training."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.invisibility_cloak.patch.median import median_filtered


class MedianFilter(nn.Module):
    """The median of each colour around each pixel; the gradient goes to the pixel that is the median."""

    def __init__(self, window: int) -> None:
        """window: odd, in pixels."""
        super().__init__()
        self.window = window

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, 3, height, width). Returns the same shape; beyond the edges the image is mirrored."""
        return torch.stack([median_filtered(image, self.window) for image in images])  # one by one: it takes memory


class GradientSmoothing(nn.Module):
    """Where neighbouring pixels differ much, the image is darkened.

    Source: Naseer, Khan, Porikli 2019, "Local gradients smoothing: defense against localized adversarial attacks"
    (WACV), equations 4 to 6: magnitudes of differences, scaled to [0, 1], count in windows in whose mean they are above
    a threshold; pixels are multiplied by 1 - strength x magnitude.
    """

    def __init__(self, window: int, threshold: float, strength: float) -> None:
        """window: of means, in pixels, half of it to the next. threshold: in [0, 1]. strength: at least 0."""
        super().__init__()
        self.window, self.threshold, self.strength = window, threshold, strength

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, 3, height, width) in [0, 1]. Returns the same shape."""
        return images * (1 - self.strength * self.magnitudes(images)).clamp(0, 1)

    def magnitudes(self, images: Tensor) -> Tensor:
        """Differences of grey to the pixels right and below, 0 where they do not count: (batch, 1, height, width)."""
        grey = images.mean(1, keepdim=True)
        down = functional.pad(grey.diff(dim=2), [0, 0, 0, 1])
        across = functional.pad(grey.diff(dim=3), [0, 1])
        size = (down.square() + across.square() + 1e-12).sqrt()
        low, high = size.amin((1, 2, 3), keepdim=True), size.amax((1, 2, 3), keepdim=True)
        size = (size - low) / (high - low).clamp_min(1e-6)
        means = functional.avg_pool2d(
            size, self.window, max(1, self.window // 2), ceil_mode=True, count_include_pad=False
        )
        counts = (means > self.threshold).to(size)
        return size * functional.interpolate(counts, size.shape[-2:], mode="nearest")
