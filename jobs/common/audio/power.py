"""Power spectrograms of sounds, with a gradient that costs one transform and is finite at silence."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CACHED = 1 << 18  # values, a megabyte in float32


def mirrored(sounds: Tensor, before: int, after: int) -> Tensor:
    """Sounds (batch, samples) with so many samples more at their ends, mirrored there: fewer than a sound has."""
    padded: Tensor = _Mirrored.apply(sounds, before, after)
    return padded


class _Mirrored(torch.autograd.Function):
    """Copies of whole rows: torch's own way goes sample by sample."""

    @staticmethod
    def forward(ctx: Any, sounds: Tensor, before: int, after: int) -> Tensor:
        ctx.before, ctx.after = before, after
        last = sounds.shape[1] - 1
        return torch.cat([sounds[:, 1 : before + 1].flip(1), sounds, sounds[:, last - after : last].flip(1)], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), before, after = gradients, ctx.before, ctx.after
        end = gradient.shape[1] - after
        inner = gradient[:, before:end].clone()
        last = inner.shape[1] - 1
        inner[:, 1 : before + 1] += gradient[:, :before].flip(1)
        inner[:, last - after : last] += gradient[:, end:].flip(1)
        return inner, None, None


def power_spectrogram(sounds: Tensor, taper: Tensor, size: int, hop: int, frames: int) -> Tensor:
    """|X|^2 of the Fourier transforms X of overlapping frames: (batch, frames, size // 2 + 1).

    sounds: real (batch, samples). taper: (window,), which frames are multiplied by; zeros fill them up to `size`.
    hop: samples between the starts of two frames. frames: how many, from the first sample on.
    """
    power: Tensor = _Power.apply(sounds, taper, size, hop, frames)
    return power


class _Power(torch.autograd.Function):
    """Its gradient is one inverse transform and a sum of the overlaps, finite also at zero; autograd would make it a
    transform of complex numbers of twice the size.
    """

    @staticmethod
    def forward(ctx: Any, sounds: Tensor, taper: Tensor, size: int, hop: int, frames: int) -> Tensor:
        window, bins = len(taper), size // 2 + 1
        overlapping = sounds.unfold(1, window, hop)[:, :frames]
        spectrum = sounds.new_empty(len(sounds), frames, bins, dtype=sounds.dtype.to_complex())
        power = sounds.new_empty(len(sounds), frames, bins)
        for part in _parts(sounds, frames * size):
            filled = sounds.new_zeros(len(sounds[part]), frames, size)
            torch.mul(overlapping[part], taper, out=filled[..., :window])
            torch.fft.rfft(filled, out=spectrum[part])
            real, imaginary = torch.view_as_real(spectrum[part]).unbind(-1)
            torch.mul(real, real, out=power[part]).addcmul_(imaginary, imaginary)
        ctx.save_for_backward(spectrum, taper)
        ctx.samples, ctx.size, ctx.hop = sounds.shape[1], size, hop
        return power

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (spectrum, taper), (gradient,) = ctx.saved_tensors, gradients
        answer = gradient.new_empty(len(gradient), ctx.samples)
        for part in _parts(gradient, gradient.shape[1] * ctx.size):
            product = gradient[part] * spectrum[part]
            # the inverse transform counts each bin twice, but for the first and, of an even size, the last
            product[..., 0] *= 2
            if ctx.size % 2 == 0:
                product[..., -1] *= 2
            frames = torch.fft.irfft(product, ctx.size)[..., : len(taper)].mul_(ctx.size * taper)
            answer[part] = _overlapped(frames, ctx.hop, ctx.samples)
        return answer, None, None, None, None


def _parts(sounds: Tensor, values: int) -> list[slice]:
    """Rows that a CPU goes through together: what is computed in between stays in its cache. values: of a row."""
    rows = max(1, CACHED // values) if sounds.device.type == "cpu" else max(1, len(sounds))
    return [slice(first, first + rows) for first in range(0, len(sounds), rows)]


def _overlapped(frames: Tensor, hop: int, samples: int) -> Tensor:
    """The sum of overlapping frames, (batch, frames, window), `hop` samples apart: (batch, samples)."""
    batch, count, window = frames.shape
    parts = -(-window // hop)
    whole = frames.new_zeros(batch, count + parts, hop)
    for part in range(parts):
        piece = frames[..., part * hop : (part + 1) * hop]
        whole[:, part : part + count, : piece.shape[2]] += piece
    flat = whole.flatten(1)[:, :samples]
    return functional.pad(flat, (0, samples - flat.shape[1]))
