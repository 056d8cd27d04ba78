"""Magnitudes of a spectrogram, as a layer of a network: differentiable, the same as `torch.stft`'s.

Source: Saadatpanah, Shafahi, Goldstein 2020, "Adversarial attacks on copyright detection systems", section 3: a
normalised Hann window, then Fourier kernels as a convolution with a stride. The window is within each frame: a
convolution of the whole sound with it would leave the lowest few hertz.
"""

from functools import lru_cache
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jobs.common.audio.power import power_spectrogram
from jobs.common.params import StudyParams
from service.errors import FieldError

TINY = 1e-20  # added to powers: the root then has a gradient at silence, which is zero


class Resolution(StudyParams):
    """How finely a spectrogram tells frequencies, and how often."""

    samples: int = Field(1024, ge=32, le=16_384, description="of a frame and of its Fourier transform")
    hop: int = Field(512, ge=1, le=16_384, description="samples from one frame to the next")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hop > self.samples:
            raise FieldError("hop", f"be at most samples, {self.samples}", self.hop)
        return self

    @property
    def bins(self) -> int:
        """Frequencies of a frame, from 0 to half the rate."""
        return self.samples // 2 + 1

    def frames(self, samples: int) -> int:
        """Whole frames in a sound of so many samples."""
        return max(0, (samples - self.samples) // self.hop + 1)


def magnitudes(sounds: Tensor, resolution: Resolution) -> Tensor:
    """sounds: float (batch, samples). Returns (batch, bins, frames): 0.5 for a sine of full scale in the middle of a
    bin.

    It equals a convolution with a stride whose kernels are w(n) cos(2 pi k n / N) and w(n) sin(2 pi k n / N), w the
    periodic Hann window over its sum, and no padding; fast Fourier transforms compute it. FieldError if the sounds are
    shorter than a frame.
    """
    return frame_magnitudes(sounds, resolution).transpose(1, 2)


def frame_magnitudes(sounds: Tensor, resolution: Resolution) -> Tensor:
    """As `magnitudes`, frame by frame as it lies in memory: (batch, frames, bins)."""
    frames = resolution.frames(sounds.shape[1])
    if not frames:
        raise FieldError("samples", f"be at most {sounds.shape[1]}, those of the sound", resolution.samples)
    taper = window(resolution.samples).to(sounds)
    return (power_spectrogram(sounds, taper, resolution.samples, resolution.hop, frames) + TINY).sqrt()


@lru_cache(maxsize=32)
def window(samples: int) -> Tensor:
    """The periodic Hann window over its sum: (samples,)."""
    hann = torch.hann_window(samples, dtype=torch.float64)
    return (hann / hann.sum()).float()
