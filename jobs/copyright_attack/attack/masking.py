"""What noise a sound hides: the masking threshold of each band and frame.

Source: Johnston 1988, "Transform coding of audio signals using perceptual noise criteria" (IEEE JSAC 6), sections II,
III: power in critical bands, spread over them as Schroeder, Atal, Hall 1979 say, lowered by how tonal a frame is, and
never below what is heard in quiet (Terhardt 1979). Frequencies in Bark by Zwicker & Terhardt 1980.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

FULL_SCALE = 96.0
"""loudness of a sine of full scale in dB SPL, as coders of sound assume who do not know how loud it is played"""
SINE = 0.25  # power of a sine of full scale where a spectrum has 0.5 for it
TONAL = -60.0  # dB of flatness of a frame that is all tones
FAINT = 1e-20  # of powers, which keeps logarithms finite


@dataclass(frozen=True)
class Bands:
    """Critical bands of a spectrum. members: float (bins, bands), 1 where a bin is in a band."""

    members: Tensor
    spreading: Tensor
    """(bands, bands): of the power of one band into another; the columns sum to 1"""
    quiet: Tensor
    """(bands,): power that is heard in quiet"""

    def powers(self, powers: Tensor) -> Tensor:
        """Power in each band: (…, bins) to (…, bands)."""
        return powers @ self.members

    def spread(self, values: Tensor) -> Tensor:
        """The value of its band for each bin: (…, bands) to (…, bins)."""
        return values @ self.members.T


def bark_of(hertz: Tensor) -> Tensor:
    """Frequencies on the scale of critical bands (Zwicker & Terhardt 1980)."""
    return 13 * torch.atan(7.6e-4 * hertz) + 3.5 * torch.atan((hertz / 7500) ** 2)


@lru_cache(maxsize=16)
def bands_of(bins: int, rate: int) -> Bands:
    """Critical bands of a spectrum of `bins` frequencies from 0 to rate / 2 hertz; those without a bin are left out."""
    hertz = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    number = bark_of(hertz).long()
    there = torch.unique(number)
    members = (number[:, None] == there).double()  # (bins, bands)
    apart = (there[None] - there[:, None]).double() + 0.474  # from a band, the row, to another
    decibels = 15.81 + 7.5 * apart - 17.5 * (1 + apart.square()).sqrt()
    spreading = 10 ** (decibels / 10)
    kilohertz = (hertz / 1000).clamp(min=0.02)
    heard = 3.64 * kilohertz**-0.8 - 6.5 * torch.exp(-0.6 * (kilohertz - 3.3) ** 2) + 1e-3 * kilohertz**4
    quiet = SINE * 10 ** ((heard - FULL_SCALE) / 10)
    faintest = torch.stack([quiet[number == each].min() for each in there])
    return Bands(members.float(), (spreading / spreading.sum(0)).float(), faintest.float())


def thresholds(powers: Tensor, rate: int) -> Tensor:
    """The noise power that each band hides: (…, bins) to (…, bands).

    powers: of a sound at `rate` samples a second, bin by bin from 0 to rate / 2, SINE for a sine of full scale. Of
    silence what is heard in quiet.
    """
    bands = bands_of(powers.shape[-1], rate)
    spread = bands.powers(powers) @ bands.spreading.to(powers)
    raised = powers.clamp(min=FAINT)
    flatness = 10 * (raised.log10().mean(-1, keepdim=True) - raised.mean(-1, keepdim=True).log10())  # dB, at most 0
    tonality = (flatness / TONAL).clamp(0, 1)
    number = torch.arange(1, spread.shape[-1] + 1).to(powers)
    below = tonality * (14.5 + number) + (1 - tonality) * 5.5  # dB
    return torch.maximum(spread * 10 ** (-below / 10), bands.quiet.to(powers))


SIZE = 512
"""samples of a frame of `analysed`, about as long as the ear's own"""


def analysed(sounds: Tensor) -> Tensor:
    """Complex spectra of frames that overlap by half, (batch, samples) to (batch, frames, bins): `composed` undoes it.

    Root-Hann windows in both: the two together change nothing. 0.5 for a sine of full scale in the middle of a bin.
    """
    spectra: Tensor = torch.stft(
        sounds,
        SIZE,
        SIZE // 2,
        window=_taper().to(sounds),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return spectra.transpose(1, 2) / GAIN


def composed(spectra: Tensor, samples: int) -> Tensor:
    """Sounds of frames: (batch, frames, bins) to (batch, samples)."""
    sounds: Tensor = torch.istft(
        spectra.transpose(1, 2) * GAIN, SIZE, SIZE // 2, window=_taper().to(spectra.real), center=True, length=samples
    )
    return sounds


GAIN = 2 * SIZE / math.pi  # the sum of a root-Hann window, so that a sine of full scale has 0.5


@lru_cache(maxsize=1)
def _taper() -> Tensor:
    return torch.hann_window(SIZE).sqrt()


def noise_to_mask(originals: Tensor, changed: Tensor, rate: int) -> Tensor:
    """How far a change is above what the original hides, in dB: (batch,). 0: as loud as the threshold, on average.

    The mean over bands and frames of the ratio of powers, as the total NMR of ITU-R BS.1387 averages it (Brandenburg &
    Sporer 1992); what is below 0 dB is not heard.
    """
    limits = thresholds(analysed(originals).abs().square(), rate)  # (batch, frames, bands)
    differences = analysed(changed - originals).abs().square()
    ratios = bands_of(differences.shape[-1], rate).powers(differences) / limits
    decibels: Tensor = 10 * ratios.mean((1, 2)).clamp(min=FAINT).log10()
    return decibels
