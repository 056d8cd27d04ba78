"""Random changes to whole batches of sounds that leave what is heard as it is. Each sound has draws of its own.

Sources: Ko et al. 2015 (speed); Park et al. 2019, "SpecAugment" (masks); Olah et al. 2017 (what is optimised has to
bear changes).
"""

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from jobs.common.params import StudyParams


class TransformationParams(StudyParams):
    """Random changes, drawn anew each time."""

    shift: float = Field(0.025, ge=0, le=1, description="the most that a sound is moved in time, in seconds; it wraps")
    speed: float = Field(0.02, ge=0, le=0.5, description="the most that speed and pitch change, as a share")
    gain: float = Field(0.2, ge=0, lt=1, description="the most that loudness changes, as a share")
    noise: float = Field(1e-3, ge=0, le=1, description="standard deviation of the noise that is added to samples")
    time_mask: float = Field(0.0, ge=0, lt=1, description="the longest part that is silenced, as a share of the sound")
    frequency_mask: float = Field(
        0.0, ge=0, lt=1, description="the widest band that is taken out, as a share of all frequencies"
    )

    def apply(self, sounds: Tensor, rate: int, generator: torch.Generator) -> Tensor:
        """sounds: (batch, samples), changed or as they are. generator: on the CPU."""
        if self.shift or self.speed:
            sounds = moved(sounds, round(self.shift * rate), self.speed, generator)
        if self.frequency_mask:
            spectrum = torch.fft.rfft(sounds)
            kept = mask(len(spectrum), spectrum.shape[1], self.frequency_mask, generator).to(sounds.device)
            sounds = torch.fft.irfft(spectrum * kept, sounds.shape[1])
        if self.time_mask:
            sounds = sounds * mask(len(sounds), sounds.shape[1], self.time_mask, generator).to(sounds.device)
        if self.gain:
            gains = 1 + self.gain * (2 * torch.rand(len(sounds), 1, generator=generator) - 1)
            sounds = sounds * gains.to(sounds.device)
        if self.noise:
            noise = torch.randn(sounds.shape, generator=generator).to(sounds.device)
            sounds = torch.add(sounds, noise, alpha=self.noise)
        return sounds

    def apply_to_mels(self, mels: Tensor, hop: float, floor: float, generator: torch.Generator) -> Tensor:
        """The same for log-mel spectrograms (batch, bands, frames), without noise; speed is then of time alone.

        hop: seconds between two frames. floor: the logarithm of silence, which masks leave.
        """
        batch, bands, frames = mels.shape
        if self.shift or self.speed:
            whole = mels.transpose(1, 2).reshape(batch, frames, bands)
            mels = moved(whole, round(self.shift / hop), self.speed, generator).transpose(1, 2)
        if self.frequency_mask:
            kept = mask(batch, bands, self.frequency_mask, generator).to(mels.device)[:, :, None]
            mels = torch.where(kept > 0, mels, floor)
        if self.time_mask:
            kept = mask(batch, frames, self.time_mask, generator).to(mels.device)[:, None]
            mels = torch.where(kept > 0, mels, floor)
        if self.gain:
            gains = 1 + self.gain * (2 * torch.rand(batch, 1, 1, generator=generator) - 1)
            mels = mels + 2 * gains.to(mels.device).log()
        return mels


def moved(sounds: Tensor, most_shift: int, most_speed: float, generator: torch.Generator) -> Tensor:
    """Move each sound in time and change its speed about its middle, by linear interpolation; the ends are neighbours.

    sounds: (batch, samples) or (batch, samples, features). most_shift: in samples.
    """
    batch, samples = sounds.shape[:2]
    most_shift = min(most_shift, samples // 2)  # which reaches every place, as the ends are neighbours
    shifts = torch.randint(-most_shift, most_shift + 1, (batch, 1), generator=generator)
    speeds = 1 + most_speed * (2 * torch.rand(batch, 1, generator=generator) - 1)
    # how far from its place each sample is fetched: small numbers, which are exact where places are not
    offsets = shifts.to(sounds.dtype)
    if most_speed:
        offsets = torch.addcmul(offsets, torch.arange(samples, dtype=sounds.dtype) - samples // 2, speeds - 1)
    offsets = offsets.expand(batch, samples).to(sounds.device)
    below = offsets.floor()
    margin = min(most_shift + math.ceil(most_speed * samples / 2) + 1, samples - 1)
    first = below.long() + torch.arange(margin, margin + samples, device=sounds.device)
    fetched: Tensor = _Fetched.apply(sounds, first, offsets - below, margin)
    return fetched


class _Fetched(torch.autograd.Function):
    """Values between two samples, for which autograd would go through the sounds many times more."""

    @staticmethod
    def forward(ctx: Any, sounds: Tensor, first: Tensor, share: Tensor, margin: int) -> Tensor:
        """sounds: (batch, samples, …). first: int64 (batch, samples), the place of the sample before, counted from
        `margin` samples before the first. share: (batch, samples), how far towards the next one.
        """
        around = torch.cat([sounds[:, sounds.shape[1] - margin :], sounds, sounds[:, : margin + 1]], 1)
        if sounds.ndim == 3:
            first, share = (each[:, :, None].expand(sounds.shape) for each in (first, share))
        ctx.save_for_backward(first, share)
        ctx.margin = margin
        return torch.lerp(around.gather(1, first), around[:, 1:].gather(1, first), share)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        first, share = ctx.saved_tensors
        (gradient,), margin, samples = gradients, ctx.margin, first.shape[1]
        around = gradient.new_zeros(len(gradient), samples + 2 * margin + 1, *gradient.shape[2:])
        to_next = gradient * share
        around[:, 1:].scatter_add_(1, first, to_next)
        around.scatter_add_(1, first, gradient - to_next)
        answer = around[:, margin : margin + samples]
        answer[:, samples - margin :] += around[:, :margin]  # the ends are neighbours
        answer[:, : margin + 1] += around[:, margin + samples :]
        return answer, None, None, None


def mask(batch: int, length: int, most: float, generator: torch.Generator) -> Tensor:
    """Ones (batch, length) with zeros in one run of each row. most: its greatest length, as a share."""
    widths, places = torch.rand(2, batch, 1, generator=generator)
    width = widths * most * length
    start = places * (length - width)
    index = torch.arange(length)
    kept: Tensor = (index < start) | (index >= start + width)
    return kept.float()
