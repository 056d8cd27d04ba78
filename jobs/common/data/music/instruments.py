"""Instruments and drums: how a note sounds. Partials are added up, or one sine bends the phase of another.

Sources: additive synthesis with an envelope for each partial (Risset & Mathews 1969); frequency modulation (Chowning
1973); reverberation as a convolution with noise that dies away (Moorer 1979).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

A4, A4_HERTZ = 69, 440.0
HIGHEST = 0.45  # of the samples a second: a partial above is left out


@dataclass(frozen=True)
class Envelope:
    """How a note swells and dies: seconds up to the peak, seconds in which it falls to 1/e after it, the share that it
    holds until its end, and seconds of its last fall."""

    attack: float
    decay: float
    sustain: float
    release: float

    def curve(self, length: float, rate: int) -> Tensor:
        """(samples,) from the beginning of a note to the end of its last fall. length: of the note in seconds."""
        time = _times(length + self.release, rate)
        rise = (time / self.attack).clamp(max=1) if self.attack else torch.ones_like(time)
        fall = self.sustain + (1 - self.sustain) * torch.exp(-(time - self.attack).clamp(min=0) / self.decay)
        end = (1 - (time - length) / self.release).clamp(0, 1)
        curve: Tensor = rise * fall * end
        return curve


@dataclass(frozen=True)
class Vibrato:
    """Pitch that swings: by how many semitones, how often a second; it sets in slowly."""

    depth: float = 0.0
    hertz: float = 5.5
    onset: float = 0.25

    def phase(self, hertz: float, time: Tensor) -> Tensor:
        """Of a tone of so many hertz: radians (samples,)."""
        steady = 2 * math.pi * hertz * time
        if not self.depth:
            return steady
        swing = hertz * (2 ** (self.depth / 12) - 1) / self.hertz
        return steady - swing * (time / self.onset).clamp(max=1) * torch.cos(2 * math.pi * self.hertz * time)


class Instrument(ABC):
    """How notes of any pitch and length sound."""

    envelope: Envelope
    vibrato: Vibrato

    def tone(self, pitch: float, length: float, rate: int) -> Tensor:
        """A note: (samples,) with a peak of about 1. pitch: a number of MIDI, with parts of a semitone. length: in
        seconds, without its end.
        """
        curve = self.envelope.curve(length, rate)
        time = torch.arange(len(curve)) / rate
        hertz = A4_HERTZ * 2 ** ((pitch - A4) / 12)
        return curve * self._wave(self.vibrato.phase(hertz, time), time, hertz, rate)

    @abstractmethod
    def _wave(self, phase: Tensor, time: Tensor, hertz: float, rate: int) -> Tensor:
        """(samples,) without the envelope. phase: of the fundamental."""


@dataclass(frozen=True)
class Additive(Instrument):
    """Partials k with the amplitude 1/k^slope, the higher the sooner gone.

    even: the share of those with an even number. stretch: how far a partial is above a multiple, as in a string.
    """

    envelope: Envelope
    partials: int
    slope: float
    even: float = 1.0
    stretch: float = 0.0
    damping: float = 0.0
    """a partial k falls to 1/e in 1/(k damping) seconds"""
    vibrato: Vibrato = Vibrato()

    def _wave(self, phase: Tensor, time: Tensor, hertz: float, rate: int) -> Tensor:
        wave = torch.zeros_like(time)
        for k in range(1, self.partials + 1):
            multiple = k * math.sqrt(1 + self.stretch * k * k)
            if hertz * multiple > HIGHEST * rate:
                break
            amplitude = (self.even if k % 2 == 0 else 1.0) / k**self.slope
            wave += amplitude * torch.sin(multiple * phase) * torch.exp(-self.damping * (k - 1) * time)
        tone: Tensor = wave / sum(1 / k**self.slope for k in range(1, self.partials + 1))
        return tone


@dataclass(frozen=True)
class FrequencyModulated(Instrument):
    """One sine whose phase another one bends by `index` radians, less and less (`fading`, 1/seconds)."""

    envelope: Envelope
    ratio: float
    index: float
    fading: float
    vibrato: Vibrato = Vibrato()

    def _wave(self, phase: Tensor, time: Tensor, hertz: float, rate: int) -> Tensor:
        # sidebands up to index + 1 matter (Carson's rule): the index is kept where they fit below the highest
        room = max(0.0, (HIGHEST * rate - hertz) / (self.ratio * hertz) - 1)
        index = min(self.index, room) * torch.exp(-self.fading * time)
        return torch.sin(phase + index * torch.sin(self.ratio * phase))


PIANO = Additive(Envelope(0.004, 0.9, 0.0, 0.12), 10, 1.2, stretch=4e-4, damping=1.5)
PLUCKED = Additive(Envelope(0.003, 0.5, 0.0, 0.08), 12, 1.0, damping=3.0)
ORGAN = Additive(Envelope(0.02, 1.0, 0.9, 0.06), 8, 0.9, even=0.6)
STRINGS = Additive(Envelope(0.12, 1.0, 0.8, 0.2), 12, 1.1, vibrato=Vibrato(0.15))
CLARINET = Additive(Envelope(0.04, 1.0, 0.85, 0.08), 11, 1.0, even=0.1, vibrato=Vibrato(0.08, 5.0))
FLUTE = Additive(Envelope(0.06, 1.0, 0.9, 0.1), 4, 2.0, vibrato=Vibrato(0.2, 5.0))
ELECTRIC_PIANO = FrequencyModulated(Envelope(0.004, 0.8, 0.1, 0.15), 1.0, 1.8, 2.5)
BELL = FrequencyModulated(Envelope(0.002, 0.9, 0.0, 0.3), 3.5, 2.5, 1.5)
BRASS = FrequencyModulated(Envelope(0.06, 0.6, 0.75, 0.1), 1.0, 3.0, 0.5, Vibrato(0.1, 5.0))
FINGERED = Additive(Envelope(0.005, 0.6, 0.3, 0.05), 8, 1.4, damping=2.0)
SYNTHESISER = FrequencyModulated(Envelope(0.005, 0.4, 0.5, 0.05), 1.0, 2.2, 4.0)

LEADS: tuple[Instrument, ...] = (CLARINET, FLUTE, BRASS, BELL, PIANO, PLUCKED, STRINGS)
CHORDS: tuple[Instrument, ...] = (PIANO, ORGAN, STRINGS, ELECTRIC_PIANO, PLUCKED)
BASSES: tuple[Instrument, ...] = (FINGERED, SYNTHESISER, ORGAN)


@dataclass(frozen=True)
class Drums:
    """A set of drums. tuning: by how much its skins are higher than usual, as a factor. seed: of its noise."""

    tuning: float = 1.0
    seed: int = 0

    def stroke(self, name: str, rate: int) -> Tensor:
        """(samples,) with a peak of about 1. name: kick, snare or hat."""
        if name == "kick":
            time = _times(0.25, rate)
            bent = 45 * time + 75 * 0.04 * (1 - torch.exp(-time / 0.04))  # cycles: from 120 hertz down to 45
            kick: Tensor = torch.sin(2 * math.pi * self.tuning * bent) * torch.exp(-time / 0.08)
            return kick
        if name == "snare":
            time = _times(0.2, rate)
            body = torch.sin(2 * math.pi * 185 * self.tuning * time) * torch.exp(-time / 0.05)
            return 0.5 * body + 0.25 * noise(len(time), self.seed) * torch.exp(-time / 0.07)
        time = _times(0.06, rate)
        hiss = noise(len(time), self.seed + 1)
        return 0.2 * (hiss - hiss.roll(1)) * torch.exp(-time / 0.02)


def reverberated(sound: Tensor, rate: int, seconds: float, share: float, seed: int) -> Tensor:
    """The sound with its echo in a room.

    sound: (samples,); what rings on after its end is cut off. seconds: in which the echo falls by 60 dB. share: its
    loudness beside the sound.
    """
    time = _times(seconds, rate)
    room = noise(len(time), seed) * torch.exp(-math.log(1000) * time / seconds)
    room = torch.nn.functional.avg_pool1d(room[None, None], 3, 1, 1)[0, 0]  # walls swallow what is high
    size = 1 << (len(sound) + len(room) - 1).bit_length()
    echo = torch.fft.irfft(torch.fft.rfft(sound, size) * torch.fft.rfft(room / room.norm(), size), size)
    wet: Tensor = sound + share * echo[: len(sound)]
    return wet


def noise(samples: int, seed: int) -> Tensor:
    """White noise of standard deviation 1: float32 (samples,)."""
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def _times(seconds: float, rate: int) -> Tensor:
    """Of the samples, in seconds: (samples,), one at least."""
    return torch.arange(max(1, round(seconds * rate))) / rate
