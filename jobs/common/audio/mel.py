"""Log-mel spectrograms in torch: differentiable, finite at digital silence, equal to torchaudio's.

Sources: Davis & Mermelstein 1980; the mel scale of O'Shaughnessy 1987, as torchaudio's `mel_scale="htk"`.
"""

import torch
from torch import Tensor, nn

from jobs.common.audio.power import mirrored, power_spectrogram
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
        padded = mirrored(sounds, before, after)
        return power_spectrogram(padded, self.taper, self.size, self.hop, self.frames(sounds.shape[1]))

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: float (batch, samples). Returns (batch, bands, frames): natural logarithms, at least log(FLOOR)."""
        bands = self.power(sounds) @ self.filters  # (batch, frames, bands)
        return (bands + FLOOR).log().transpose(1, 2)
