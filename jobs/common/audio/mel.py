"""Log-mel spectrograms in torch: differentiable, finite at digital silence, equal to torchaudio's.

Sources: Davis & Mermelstein 1980; the mel scale of O'Shaughnessy 1987, as torchaudio's `mel_scale="htk"`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from service.errors import FieldError

FLOOR = 1e-6  # added to powers before the logarithm: the gradient at digital silence is then finite


def mel_of(hertz: Tensor) -> Tensor:
    """Frequencies in mel (O'Shaughnessy 1987)."""
    return 2595 * torch.log10(1 + hertz / 700)


def hertz_of(mel: Tensor) -> Tensor:
    """Undo `mel_of`."""
    return 700 * (10 ** (mel / 2595) - 1)


def triangles(bins: int, bands: int, rate: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Triangular filters, equally wide in mel, of height 1. Returns (bins, bands).

    bins: of a spectrum from 0 to rate / 2 hertz. low, high: the ends of the first and the last filter in hertz.
    FieldError if a filter lies between two bins.
    """
    lowest, highest = mel_of(torch.tensor([low, rate / 2 if high is None else high], dtype=torch.float64)).tolist()
    # float32 from here on, as in torchaudio: networks that were trained with its filters get the same
    corners = hertz_of(torch.linspace(lowest, highest, bands + 2))  # (bands + 2,)
    hertz = torch.linspace(0, rate / 2, bins)[:, None]
    rising = (hertz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hertz) / (corners[2:] - corners[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    if not bool((filters.sum(0) > 0).all()):
        raise FieldError("bands", f"be fewer for {bins} bins of a spectrum: a filter lies between two of them", bands)
    return filters


class LogMel(nn.Module):
    """The logarithm of the power in mel bands, frame by frame. A frame is centred; the ends are mirrored."""

    filters: Tensor
    taper: Tensor

    def __init__(self, rate: int, bands: int = 64, size: int = 512, window: int = 320, hop: int = 160) -> None:
        """rate: samples a second. size: of the Fourier transform; window, hop: all three in samples."""
        super().__init__()
        if not 1 <= hop <= window <= size:
            raise FieldError("window", f"be from hop, {hop}, to size, {size}", window)
        self.rate, self.bands, self.size, self.window, self.hop = rate, bands, size, window, hop
        self.register_buffer("filters", triangles(size // 2 + 1, bands, rate), persistent=False)
        self.register_buffer("taper", torch.hann_window(window), persistent=False)

    @property
    def shortest(self) -> int:
        """Samples that a sound must have at least: mirrored ends need more than half a transform."""
        return self.size // 2 + 1

    def frames(self, samples: int) -> int:
        """How many frames a sound of so many samples has."""
        return samples // self.hop + 1

    def power(self, sounds: Tensor) -> Tensor:
        """The spectrum of power: sounds (batch, samples) to (batch, frames, bins)."""
        before = self.size // 2 - (self.size - self.window) // 2  # the window is in the middle of a transform
        after = self.window - before
        padded = functional.pad(sounds[:, None], (before, after), mode="reflect")[:, 0]
        power: Tensor = _Power.apply(padded, self.taper, self.size, self.hop, self.frames(sounds.shape[1]))
        return power

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: float (batch, samples). Returns (batch, bands, frames): natural logarithms, at least log(FLOOR)."""
        bands = self.power(sounds) @ self.filters  # (batch, frames, bands)
        return (bands + FLOOR).log().transpose(1, 2)


class _Power(torch.autograd.Function):
    """|X|^2 of the Fourier transforms X of overlapping frames. Its gradient is one inverse transform and a sum of the
    overlaps, finite also at zero; autograd would make it a transform of complex numbers of twice the size.
    """

    @staticmethod
    def forward(ctx: Any, sounds: Tensor, taper: Tensor, size: int, hop: int, frames: int) -> Tensor:
        """sounds: (batch, samples). taper: (window,), which frames are multiplied by; zeros fill them up to `size`.

        hop: samples between the starts of two frames. Returns (batch, frames, size // 2 + 1).
        """
        window = len(taper)
        filled = sounds.new_zeros(len(sounds), frames, size)
        torch.mul(sounds.unfold(1, window, hop)[:, :frames], taper, out=filled[..., :window])
        spectrum = torch.fft.rfft(filled)
        ctx.save_for_backward(spectrum, taper)
        ctx.samples, ctx.size, ctx.hop = sounds.shape[1], size, hop
        real, imaginary = torch.view_as_real(spectrum).unbind(-1)
        return real.square().addcmul_(imaginary, imaginary)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        spectrum, taper = ctx.saved_tensors
        product = gradients[0] * spectrum
        # the inverse transform counts each bin twice, but for the first and, of an even size, the last
        product[..., 0] *= 2
        if ctx.size % 2 == 0:
            product[..., -1] *= 2
        frames = torch.fft.irfft(product, ctx.size)[..., : len(taper)] * (ctx.size * taper)
        return _overlapped(frames, ctx.hop, ctx.samples), None, None, None, None


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
