"""The losses of the paper as they are written there: over whole maps, unfolded, by torch's own transform.

The reference of the tests, and what the benchmark compares with.
"""

import torch
from torch import Tensor

from jobs.common.audio.fingerprints.spectrum import Resolution


def log_map(sounds: Tensor, resolution: Resolution) -> Tensor:
    """log(1 + 1e5 |STFT|): (batch, bins, frames), by a convolution with a stride."""
    size, bins = resolution.samples, resolution.samples // 2 + 1
    hann = torch.hann_window(size, dtype=sounds.dtype)
    angles = 2 * torch.pi * torch.arange(bins)[:, None] * torch.arange(size) / size
    weights = hann / hann.sum()
    kernels = torch.cat([weights * angles.cos(), weights * angles.sin()])[:, None].to(sounds)
    parts = torch.nn.functional.conv1d(sounds[:, None], kernels, stride=resolution.hop)
    real, imaginary = parts.split(bins, 1)
    return torch.log1p(1e5 * (real.square() + imaginary.square() + 1e-20).sqrt())


def smoothed_maxima(maps: Tensor, reach: int, alpha: float) -> Tensor:
    """S_alpha of the 2 reach + 1 bins around every place of the maps (batch, bins, frames)."""
    padded = torch.nn.functional.pad(maps, (0, 0, reach, reach), value=-torch.inf)
    around = padded.unfold(1, 2 * reach + 1, 1)  # (batch, bins, frames, 2 reach + 1)
    there = around > -torch.inf
    weights = torch.where(there, alpha * around, -torch.inf).softmax(3)
    return (weights * torch.where(there, around, 0)).sum(3)


def ring_loss(
    maps: Tensor, peaks: Tensor, outer: int, inner: int, margin: float, alpha: float, sign: int = 1
) -> Tensor:
    """The ring loss, or with sign -1 the remix loss, as a mean over peaks: (batch,)."""
    brackets = sign * (smoothed_maxima(maps, outer, alpha) - smoothed_maxima(maps, inner, alpha))
    return (torch.relu(margin - brackets) * peaks).sum((1, 2)) / peaks.sum((1, 2))
