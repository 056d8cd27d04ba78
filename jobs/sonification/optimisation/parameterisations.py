"""What is optimised in place of a sound: its samples, its Fourier coefficients, or its log-mel spectrogram.

What it stands for has constant loudness and nothing below a frequency: otherwise every objective ends in loud noise, or
where nobody hears it.

Source of the scaled Fourier coefficients: Olah et al. 2017, "Preconditioning and Parameterization".
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.audio.levels import RMS, at_loudness, high_pass, high_pass_gain, rms
from jobs.common.audio.mel import FLOOR, LogMel
from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.audio.transformations import TransformationParams
from jobs.common.params import StudyParams
from jobs.sonification.optimisation.vocoding import VocoderParams, vocode
from service.errors import InputError

Draw = Callable[..., Tensor]
LOWEST = 50.0  # hertz, below which Fourier coefficients are scaled no further
SPREAD = 0.5  # standard deviation of the noise that log-mels begin with


@dataclass(frozen=True)
class Canvas:
    """What all sounds have in common."""

    rate: int
    samples: int
    """of each"""
    high_pass: float
    """hertz"""
    mel: LogMel
    """the front end of the network, if it is one, else a usual one"""
    mean_mel: Tensor
    """(bands,), of the data: where log-mels begin"""

    def to(self, device: torch.device) -> "Canvas":
        return replace(self, mel=self.mel.to(device), mean_mel=self.mean_mel.to(device))

    def finished(self, sounds: Tensor) -> Tensor:
        """As they are heard: without what is too low, at constant loudness."""
        return at_loudness(high_pass(sounds, self.rate, self.high_pass))


class Parameterisation(StudyParams):
    """What a sound is made from, and how. `step_size` is that of Adam."""

    step_size: float

    def after(self, network: SoundNetwork) -> str | None:
        """The layer whose answers are optimised; None: it is the sound. InputError if the network has no such layer."""
        return None

    @abstractmethod
    def start(self, draw: Draw, clip: Tensor | None, canvas: Canvas) -> Tensor:
        """What is optimised, at the start: (rows, …).

        draw: standard normal noise (rows, *shape) of a shape. clip: (rows, samples) to begin with, in place of noise.
        """

    @abstractmethod
    def shown(self, values: Tensor, canvas: Canvas) -> Tensor:
        """What the network gets: sounds (rows, samples), or log-mels (rows, bands, frames)."""

    def transformed(
        self, shown: Tensor, transformations: TransformationParams, canvas: Canvas, stream: torch.Generator
    ) -> Tensor:
        """The same with random changes."""
        return transformations.apply(shown, canvas.rate, stream)

    def sounds(self, shown: Tensor, canvas: Canvas) -> Tensor:
        """What is heard in the end: (rows, samples)."""
        return shown

    def mels(self, shown: Tensor, canvas: Canvas) -> Tensor:
        """Log-mel spectrograms (rows, bands, frames) of what the network gets."""
        mels: Tensor = canvas.mel(shown)
        return mels


class Waveform(Parameterisation):
    """The samples."""

    kind: Literal["waveform"] = Field("waveform", description="the samples of the sound")
    step_size: float = Field(1e-2, gt=0, le=10, description="of Adam, in units of full scale")

    def start(self, draw: Draw, clip: Tensor | None, canvas: Canvas) -> Tensor:
        return RMS * draw(canvas.samples) if clip is None else clip

    def shown(self, values: Tensor, canvas: Canvas) -> Tensor:
        return canvas.finished(values)


class Fourier(Parameterisation):
    """The coefficients of its Fourier transform, low frequencies weighing more."""

    kind: Literal["fourier"] = Field("fourier", description="the Fourier coefficients of the sound")
    power: float = Field(0.25, ge=0, le=2, description="p: coefficients are scaled by 1 / f^p above 50 Hz")
    step_size: float = Field(2e-2, gt=0, le=10, description="of Adam, in units of scaled coefficients")

    def start(self, draw: Draw, clip: Tensor | None, canvas: Canvas) -> Tensor:
        """Noise is scaled as well: it begins with the spectrum of the prior."""
        if clip is None:
            spectrum = torch.fft.rfft(RMS * draw(canvas.samples), norm="ortho")
        else:
            spectrum = torch.fft.rfft(clip, norm="ortho") / self._scale(canvas, clip.device)
        return torch.view_as_real(spectrum).contiguous()  # (rows, bins, 2)

    def shown(self, values: Tensor, canvas: Canvas) -> Tensor:
        gain = high_pass_gain(canvas.samples, canvas.rate, canvas.high_pass, values.device)
        gain = gain * self._scale(canvas, values.device)
        spectrum = torch.view_as_complex(values) * gain
        return at_loudness(torch.fft.irfft(spectrum, canvas.samples, norm="ortho"))

    def _scale(self, canvas: Canvas, device: torch.device) -> Tensor:
        """(bins,), 1 in the mean of squares."""
        frequencies = torch.fft.rfftfreq(canvas.samples, 1 / canvas.rate, device=device).clamp(min=LOWEST)
        scale: Tensor = frequencies**-self.power
        return scale / rms(scale)


class LogMels(Parameterisation):
    """A log-mel spectrogram of constant power, for networks that begin with one; a vocoder makes a sound of it."""

    kind: Literal["log_mel"] = Field("log_mel", description="the log-mel spectrogram that the network begins with")
    step_size: float = Field(0.1, gt=0, le=10, description="of Adam, in units of natural logarithms of power")
    vocoder: VocoderParams = Field(VocoderParams(), description="how it becomes a sound")

    def after(self, network: SoundNetwork) -> str | None:
        if not isinstance(network.stages[network.front_end], LogMel):
            raise InputError(
                f"the parameterisation log_mel needs a network that begins with a log-mel spectrogram; "
                f"this one begins with {network.front_end!r}"
            )
        return network.front_end

    def start(self, draw: Draw, clip: Tensor | None, canvas: Canvas) -> Tensor:
        if clip is not None:
            mels: Tensor = canvas.mel(clip)
            return mels
        return canvas.mean_mel[:, None] + SPREAD * draw(canvas.mel.bands, canvas.mel.frames(canvas.samples))

    def shown(self, values: Tensor, canvas: Canvas) -> Tensor:
        """With the power of the data, in the mean over bands and frames, and no less than silence has."""
        power = canvas.mean_mel.exp().mean().log()
        level = values.flatten(1).exp().mean(1).log()[:, None, None]
        return (values + (power - level)).clamp(min=math.log(FLOOR))

    def transformed(
        self, shown: Tensor, transformations: TransformationParams, canvas: Canvas, stream: torch.Generator
    ) -> Tensor:
        return transformations.apply_to_mels(shown, canvas.mel.hop / canvas.rate, math.log(FLOOR), stream)

    def sounds(self, shown: Tensor, canvas: Canvas) -> Tensor:
        return canvas.finished(vocode(shown, canvas.mel, canvas.samples, self.vocoder))

    def mels(self, shown: Tensor, canvas: Canvas) -> Tensor:
        return shown


AnyParameterisation = Annotated[Waveform | Fourier | LogMels, Field(discriminator="kind")]
