"""What a labelled set of sounds is, and the forms that fit all sources: clips in memory, and a part of a set."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.audio.files import Sound
from jobs.common.audio.levels import at_loudness
from jobs.common.data.sets import DataSet, FolderParams, Subset
from jobs.common.params import ONCE, StudyParams
from service.errors import InputError

FULL = 32767  # of a sample of 16 bits
MOST_BYTES = 2 << 30  # of a set in memory
Factor = tuple[str, ...] | tuple[float, ...]


class SoundSet(DataSet, Protocol):
    """Clips of one length at one rate, each with a class."""

    rate: int
    """samples a second"""
    samples: int
    """of a clip"""
    labels: Tensor
    """int64 (n,), in 0..len(classes)-1"""
    names: tuple[str, ...]
    """of each clip"""
    factors: Mapping[str, Factor]
    """what else is known of every clip, by name: numbers, such as its pitch in hertz, or words, such as its voice"""

    def sounds(self, indices: Tensor) -> Tensor:
        """The clips at int64 (k,) indices: float32 (k, samples) in [-1, 1]."""


class SpeechParams(StudyParams):
    """Words that a synthesiser speaks: every word by every voice at every pitch and speed."""

    words: Annotated[tuple[str, ...], ONCE] = Field(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        min_length=2,
        max_length=1000,
        description="the words, which are the classes",
    )
    voices: Annotated[tuple[str, ...], ONCE] = Field(
        ("en-us+m1", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f2", "en-us+f4", "en+m2", "en+f3"),
        min_length=1,
        max_length=100,
        description="language and variant of espeak-ng, as in en-us+f2; en is British",
    )
    pitches: Annotated[tuple[int, ...], ONCE] = Field(
        (10, 30, 50, 70, 90), min_length=1, max_length=100, description="of espeak-ng, from 0 to 99"
    )
    speeds: Annotated[tuple[int, ...], ONCE] = Field(
        (140, 180), min_length=1, max_length=100, description="words a minute, from 80 to 450"
    )


class Source(FolderParams):
    """Where a set of sounds lies, and how a file becomes a clip."""

    rate: int = Field(16_000, ge=4_000, le=48_000, description="samples a second that sounds are brought to")
    seconds: float = Field(
        0.7,
        ge=0.001,
        le=60,
        description="length of a clip: a longer sound is cut at its middle, a shorter one is padded",
    )
    noise: float = Field(
        1e-3, ge=0, le=0.1, description="standard deviation of the noise in every clip: no clip has digital silence"
    )
    speech: SpeechParams = Field(SpeechParams(), description="of spoken_digits: what is spoken")

    @property
    def samples(self) -> int:
        """Of a clip."""
        return round(self.seconds * self.rate)


class Labelled(ABC):
    """What is known of clips before one of them is heard; its children say where their samples are."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        samples: int,
        labels: Tensor,
        rate: int,
        names: Sequence[str],
        factors: Mapping[str, Factor] | None = None,
    ) -> None:
        """samples: of a clip. labels: int64 (n,)."""
        if not len(labels):
            raise InputError(f"{name} has no clips")
        if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
            bounds = f"from {int(labels.min())} to {int(labels.max())}"
            raise InputError(f"labels of {name} must be from 0 to {len(classes) - 1}; they are {bounds}")
        self.name, self.classes, self.labels, self.rate = name, tuple(classes), labels, rate
        self.names, self.samples = tuple(names), samples
        self.factors: Mapping[str, Factor] = dict(factors or {})

    @property
    @abstractmethod
    def data(self) -> Tensor:
        """All clips, 16 bits a sample: int16 (n, samples)."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps([self.classes, self.rate, self.names, self.factors]).encode())
        digest.update(self.data.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def sounds(self, indices: Tensor) -> Tensor:
        return self.data[indices].float() / FULL


class Clips(Labelled):
    """A set in memory."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        samples: Tensor,
        labels: Tensor,
        rate: int,
        names: Sequence[str],
        factors: Mapping[str, Factor] | None = None,
    ) -> None:
        """samples: int16 (n, samples). labels: int64 (n,)."""
        if samples.dtype != torch.int16 or samples.ndim != 2 or not len(samples) == len(labels) == len(names):
            raise InputError(f"{name}: {len(labels)} labels for samples of {samples.dtype} {tuple(samples.shape)}")
        super().__init__(name, classes, samples.shape[1], labels, rate, names, factors)
        self._data = samples

    @property
    def data(self) -> Tensor:
        return self._data


class Part(Subset):
    """Some clips of a set."""

    def __init__(self, whole: SoundSet, indices: Tensor) -> None:
        """indices: int64 (k,)."""
        super().__init__(whole, indices)
        self.rate, self.samples = whole.rate, whole.samples
        self.labels: Tensor = whole.labels[indices]
        places = indices.tolist()
        self.names = tuple(whole.names[place] for place in places)
        self.factors: Mapping[str, Factor] = {
            name: tuple(values[place] for place in places) for name, values in whole.factors.items()
        }

    def sounds(self, indices: Tensor) -> Tensor:
        sounds: Tensor = self.whole.sounds(self.indices[indices])
        return sounds


def clip_of(sound: Sound, source: Source, seed: int) -> Tensor:
    """A clip as all sets hold them: at one rate, of one length and loudness, with a little noise.

    Returns int16 (samples,). seed: of the noise.
    """
    samples, length = sound.at_rate(source.rate).samples, source.samples
    surplus = len(samples) - length
    if surplus > 0:
        samples = samples[surplus // 2 : surplus // 2 + length]
    samples = at_loudness(samples)
    clip = torch.zeros(length)
    start = max(-surplus, 0) // 2
    clip[start : start + len(samples)] = samples
    clip += source.noise * torch.randn(length, generator=torch.Generator().manual_seed(seed))
    return (clip.clamp(-1, 1) * FULL).round().to(torch.int16)


def check_size(name: str, count: int, source: Source) -> None:
    """InputError if a set of so many clips is too large for memory."""
    if (size := 2 * count * source.samples) > MOST_BYTES:
        most, given = MOST_BYTES / 2**30, size / 2**30
        raise InputError(f"{name}: clips must take at most {most:g} GB; {count:,} clips take {given:.1f} GB")
