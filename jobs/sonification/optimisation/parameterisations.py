"""What is optimised in place of a sound: its samples, its Fourier coefficients, or its log-mel spectrogram.

What it stands for has constant loudness and nothing below a frequency: otherwise every objective ends in loud noise, or
where nobody hears it.

Source of the scaled Fourier coefficients: Olah et al. 2017, "Preconditioning and Parameterization".
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.audio.levels import RMS, at_loudness, filtered, high_pass_gain, rms
from jobs.common.audio.mel import FLOOR, LogMel
from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.audio.transformations import TransformationParams
from jobs.common.params import StudyParams
from jobs.sonification.optimisation.vocoding import VocoderParams, vocode
from service.errors import InputError

Draw = Callable[..., Tensor]
Check = Callable[[], None]
LOWEST = 50.0  # hertz, below which Fourier coefficients are scaled no further
SPREAD = 0.5  # standard deviation of the noise that log-mels begin with


@dataclass(frozen=True)
class SoundFormat:
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

    def to(self, device: torch.device) -> "SoundFormat":
        return replace(self, mel=self.mel.to(device), mean_mel=self.mean_mel.to(device))

    def finished(self, sounds: Tensor) -> Tensor:
        """As they are heard: without what is too low, at constant loudness."""
        return at_loudness(filtered(sounds, self.gain))

    @cached_property
    def gain(self) -> Tensor:
        """(samples // 2 + 1,), of each bin of the spectrum: what is too low is taken out."""
        return high_pass_gain(self.samples, self.rate, self.high_pass, self.mean_mel.device)


class Parameterisation(StudyParams):
    """What a sound is made from, and how. `step_size` is that of Adam."""

    step_size: float

    def after(self, network: SoundNetwork) -> str | None:
        """The layer whose answers are optimised; None: it is the sound. InputError if the network has no such layer."""
        return None

    def check(self, network: SoundNetwork, layer: str) -> None:
        """InputError if no sounds for a layer can be made so."""
        if self.after(network) == layer:
            raise InputError(f"what {layer!r} answers is itself optimised; choose a deeper layer, or samples")

    @abstractmethod
    def start(self, draw: Draw, clip: Tensor | None, sound_format: SoundFormat) -> Tensor:
        """What is optimised, at the start: (rows, …).

        draw: standard normal noise (rows, *shape) of a shape. clip: (rows, samples) to begin with, in place of noise.
        """

    @abstractmethod
    def shown(self, values: Tensor, sound_format: SoundFormat) -> Tensor:
        """What the network gets: sounds (rows, samples), or log-mels (rows, bands, frames)."""

    def transformed(
        self, shown: Tensor, transformations: TransformationParams, sound_format: SoundFormat, stream: torch.Generator
    ) -> Tensor:
        """The same with random changes."""
        return transformations.apply(shown, sound_format.rate, stream)

    def sounds(self, shown: Tensor, sound_format: SoundFormat, check: Check = lambda: None) -> Tensor:
        """The sounds themselves: (rows, samples). check: called now and then where that takes long."""
        return shown

    def mels(self, shown: Tensor, sound_format: SoundFormat) -> Tensor:
        """Log-mel spectrograms (rows, bands, frames) of what the network gets."""
        mels: Tensor = sound_format.mel(shown)
        return mels


class Waveform(Parameterisation):
    """The samples."""

    kind: Literal["waveform"] = Field("waveform", description="the samples of the sound")
    step_size: float = Field(1e-2, gt=0, le=10, description="of Adam, in units of full scale")

    def start(self, draw: Draw, clip: Tensor | None, sound_format: SoundFormat) -> Tensor:
        return RMS * draw(sound_format.samples) if clip is None else clip

    def shown(self, values: Tensor, sound_format: SoundFormat) -> Tensor:
        return sound_format.finished(values)


class Fourier(Parameterisation):
    """The coefficients of its Fourier transform, low frequencies weighing more."""

    kind: Literal["fourier"] = Field("fourier", description="the Fourier coefficients of the sound")
    power: float = Field(0.25, ge=0, le=2, description="p: coefficients are scaled by 1 / f^p above 50 Hz")
    step_size: float = Field(2e-2, gt=0, le=10, description="of Adam, in units of scaled coefficients")

    def start(self, draw: Draw, clip: Tensor | None, sound_format: SoundFormat) -> Tensor:
        """Noise is scaled as well: it begins with the spectrum of the prior."""
        if clip is None:
            spectrum = torch.fft.rfft(RMS * draw(sound_format.samples), norm="ortho")
        else:
            spectrum = torch.fft.rfft(clip, norm="ortho") / self._scale(sound_format, clip.device)
        return torch.view_as_real(spectrum).contiguous()  # (rows, bins, 2)

    def shown(self, values: Tensor, sound_format: SoundFormat) -> Tensor:
        gain = sound_format.gain * self._scale(sound_format, values.device)
        spectrum = torch.view_as_complex(values) * gain
        return at_loudness(torch.fft.irfft(spectrum, sound_format.samples, norm="ortho"))

    def _scale(self, sound_format: SoundFormat, device: torch.device) -> Tensor:
        """(bins,), 1 in the mean of squares."""
        frequencies = torch.fft.rfftfreq(sound_format.samples, 1 / sound_format.rate, device=device).clamp(min=LOWEST)
        scale: Tensor = frequencies**-self.power
        return scale / rms(scale)


class LogMels(Parameterisation):
    """A log-mel spectrogram of constant power, for networks that begin with one; a vocoder makes a sound of it."""

    kind: Literal["log_mel"] = Field("log_mel", description="the log-mel spectrogram that the network begins with")
    step_size: float = Field(0.1, gt=0, le=10, description="of Adam, in units of natural logarithms of power")
    vocoder: VocoderParams = Field(VocoderParams(), description="how it becomes a sound")

    def after(self, network: SoundNetwork) -> str | None:
        name = network.front_end
        if name not in network.stages or not isinstance(network.stages[name], LogMel):  # a module of others has none
            raise InputError(
                f"the parameterisation log_mel needs a network that begins with a log-mel spectrogram; "
                f"this one begins with {name!r}"
            )
        return name

    def start(self, draw: Draw, clip: Tensor | None, sound_format: SoundFormat) -> Tensor:
        if clip is not None:
            mels: Tensor = sound_format.mel(clip)
            return mels
        frames = sound_format.mel.frames(sound_format.samples)
        return sound_format.mean_mel[:, None] + SPREAD * draw(sound_format.mel.bands, frames)

    def shown(self, values: Tensor, sound_format: SoundFormat) -> Tensor:
        """With the power of the data, in the mean over bands and frames, and no less than silence has."""
        power = sound_format.mean_mel.exp().mean().log()
        level = values.flatten(1).exp().mean(1).log()[:, None, None]
        return (values + (power - level)).clamp(min=math.log(FLOOR))

    def transformed(
        self, shown: Tensor, transformations: TransformationParams, sound_format: SoundFormat, stream: torch.Generator
    ) -> Tensor:
        return transformations.apply_to_mels(shown, sound_format.mel.hop / sound_format.rate, math.log(FLOOR), stream)

    def sounds(self, shown: Tensor, sound_format: SoundFormat, check: Check = lambda: None) -> Tensor:
        return sound_format.finished(vocode(shown, sound_format.mel, sound_format.samples, self.vocoder, check))

    def mels(self, shown: Tensor, sound_format: SoundFormat) -> Tensor:
        return shown


AnyParameterisation = Annotated[Waveform | Fourier | LogMels, Field(discriminator="kind")]
