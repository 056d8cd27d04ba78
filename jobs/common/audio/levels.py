"""How loud a sound is, and sounds of constant loudness: differentiable, along the last dimension.

Nobody should be startled: whatever is made to be heard has the same power, and a peak below full scale.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

RMS = 0.1  # of sounds made here, -20 dB of full scale: about the level of speech
PEAK = 10 ** (-1 / 20)  # -1 dB of full scale
QUIET = 1e-8  # a root mean square below it is silence, which stays silence


def rms(sounds: Tensor) -> Tensor:
    """The root mean square: sounds (..., samples) to (..., 1)."""
    return sounds.square().mean(-1, keepdim=True).clamp(min=QUIET**2).sqrt()


def peak(sounds: Tensor) -> Tensor:
    """The largest magnitude: sounds (..., samples) to (..., 1)."""
    return sounds.abs().amax(-1, keepdim=True)


def at_loudness(sounds: Tensor, loudness: float = RMS, limit: float = PEAK) -> Tensor:
    """The same sounds at one root mean square, or less loud where a peak would be above the limit."""
    levelled: Tensor = _Levelled.apply(sounds, loudness, limit)
    return levelled


class _Levelled(torch.autograd.Function):
    """Sounds times a scale that depends on them: autograd would go through them again for every step to the scale."""

    @staticmethod
    def forward(ctx: Any, sounds: Tensor, loudness: float, limit: float) -> Tensor:
        size, (highest, place) = rms(sounds), sounds.abs().max(-1, keepdim=True)
        scale = torch.minimum(loudness / size, limit / highest.clamp(min=QUIET))
        ctx.save_for_backward(sounds, size, scale, place)
        ctx.by_size = loudness / size <= scale
        return sounds * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        sounds, size, scale, place = ctx.saved_tensors
        (gradient,) = gradients
        slope = -scale * (gradient * sounds).sum(-1, keepdim=True)  # of the logarithm of the scale
        # a root mean square depends on all samples, a peak on the largest one; silence has a scale of its own
        by_size = torch.where(ctx.by_size & (size > QUIET), slope / (size.square() * sounds.shape[-1]), 0)
        by_peak = torch.where(ctx.by_size, 0, slope / sounds.gather(-1, place))
        return torch.addcmul(gradient * scale, sounds, by_size).scatter_add_(-1, place, by_peak), None, None


def clipped_share(sounds: Tensor) -> float:
    """The share of samples at the largest magnitude, where more than two in a row are: a clipped sound has many."""
    flat = (sounds.abs() >= peak(sounds) * (1 - 1e-4)) & (peak(sounds) > QUIET)
    runs = flat[..., 2:] & flat[..., 1:-1] & flat[..., :-2]
    return float(runs.double().mean()) if runs.numel() else 0.0


def high_pass(sounds: Tensor, rate: int, hertz: float) -> Tensor:
    """Without what is below a frequency: half a cosine from one half of it up to all of it.

    sounds: (..., samples). The filter has no phase; the ends of a sound are neighbours.
    """
    return filtered(sounds, high_pass_gain(sounds.shape[-1], rate, hertz, sounds.device))


def filtered(sounds: Tensor, gain: Tensor) -> Tensor:
    """Each bin of the spectrum times a gain. sounds: (..., samples); gain: (samples // 2 + 1,)."""
    passed: Tensor = _Filter.apply(sounds, gain)
    return passed


class _Filter(torch.autograd.Function):
    """A gain for each bin of the spectrum: its own adjoint, as autograd of the two transforms does not know."""

    @staticmethod
    def forward(ctx: Any, sounds: Tensor, gain: Tensor) -> Tensor:
        ctx.save_for_backward(gain)
        passed: Tensor = torch.fft.irfft(torch.fft.rfft(sounds).mul_(gain), sounds.shape[-1])
        return passed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gain,) = ctx.saved_tensors
        return _Filter.apply(gradients[0], gain), None


def high_pass_gain(samples: int, rate: int, hertz: float, device: torch.device) -> Tensor:
    """The gain of `high_pass` for each bin of the spectrum: (samples // 2 + 1,)."""
    frequencies = torch.fft.rfftfreq(samples, 1 / rate, device=device)
    if hertz <= 0:
        return torch.ones_like(frequencies)
    place = (2 * frequencies / hertz - 1).clamp(0, 1)  # 0 at half the frequency, 1 from the frequency on
    return (1 - torch.cos(math.pi * place)) / 2


def quantised(sounds: Tensor) -> Tensor:
    """As a WAV of 16 bits holds them. sounds: within [-1, 1]."""
    return (sounds.clamp(-1, 1) * 32767).round() / 32767
