"""Sound files of strangers: decoded within bounds, to one channel of floats."""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from jobs.common.audio.levels import QUIET, at_loudness, clipped_share
from jobs.common.audio.resampling import resampled
from service.errors import InputError

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU")  # as libsndfile calls them
ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
MOST_BYTES = 64 << 20
MOST_SECONDS = 60.0
MOST_CHANNELS = 8
RATES = (4_000, 192_000)
LOUDEST = 4.0  # full scale is 1; lossy decoders go a little beyond it
CLIPPED = 0.001  # share of samples in flat peaks from which on a sound counts as clipped
BLOCK = 1 << 16  # frames that are decoded at a time: a header may promise more than there is


@dataclass(frozen=True)
class Sound:
    """One channel of sound."""

    samples: Tensor
    """float32 (n,)"""
    rate: int
    """samples a second"""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def clipped(self) -> bool:
        """Whether its peaks are cut off flat."""
        return clipped_share(self.samples) > CLIPPED

    def at_rate(self, rate: int) -> "Sound":
        return self if rate == self.rate else Sound(resampled(self.samples, self.rate, rate), rate)

    def at_loudness(self) -> "Sound":
        """At the loudness of all sounds here."""
        return Sound(at_loudness(self.samples), self.rate)


def read(file: Path | BinaryIO, name: str, most_seconds: float = MOST_SECONDS, shortest_seconds: float = 0.0) -> Sound:
    """A sound file as one channel, the mean of all that it has.

    Whole numbers of any size are brought to [-1, 1]. name: of the sound, in errors. InputError, naming the sound, if it
    cannot be read, is too large, too long, too short, empty or silent, or holds what is no sample of a sound.
    """
    try:
        data = _bytes(file)
        with soundfile.SoundFile(io.BytesIO(data)) as opened:
            _check_header(opened, most_seconds)
            samples = _decoded(opened, most_seconds)
            rate = opened.samplerate
        _check_samples(samples, rate, shortest_seconds)
    except FileNotFoundError as error:
        raise InputError(f"there is no sound file {str(file)!r}") from error
    except soundfile.LibsndfileError as error:
        kinds = ", ".join(FORMATS)
        raise InputError(f"{name} cannot be read: it is none of {kinds}, or is damaged") from error
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise InputError(f"{name} cannot be read: {error}") from error
    return Sound(torch.from_numpy(samples), rate)


def wav(samples: Tensor, rate: int) -> bytes:
    """A sound as a WAV of 16 bits, rounded as `levels.quantised` says. samples: float (n,) within [-1, 1]."""
    data = io.BytesIO()
    whole = (samples.clamp(-1, 1) * 32767).round().to(torch.int16)  # of floats libsndfile rounds down
    soundfile.write(data, whole.numpy(), rate, format="WAV", subtype="PCM_16")
    return data.getvalue()


def _bytes(file: Path | BinaryIO) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    else:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it must have at most {MOST_BYTES:,} bytes; it has more")
    if not data:
        raise ValueError("it is empty")
    return data


def _check_header(opened: soundfile.SoundFile, most_seconds: float) -> None:
    """ValueError about what the header says, before a sample is decoded."""
    if opened.format not in FORMATS:
        raise ValueError(f"its format must be one of {', '.join(FORMATS)}; it is {opened.format}")
    if not 1 <= opened.channels <= MOST_CHANNELS:
        raise ValueError(f"it must have from 1 to {MOST_CHANNELS} channels; it has {opened.channels}")
    if not RATES[0] <= opened.samplerate <= RATES[1]:
        bounds = f"from {RATES[0]:,} to {RATES[1]:,}"
        raise ValueError(f"its rate must be {bounds} samples a second; it is {opened.samplerate:,}")
    if opened.frames > most_seconds * opened.samplerate and opened.format != "MP3":  # which may only guess
        seconds = opened.frames / opened.samplerate
        raise ValueError(f"it must last at most {most_seconds:g} seconds; it lasts {seconds:.1f}")


def _decoded(opened: soundfile.SoundFile, most_seconds: float) -> np.ndarray:
    """The mean of all channels, float32 (n,), block by block."""
    most = math.ceil(most_seconds * opened.samplerate)
    blocks: list[np.ndarray] = []
    count = 0
    while len(block := opened.read(BLOCK, dtype="float32", always_2d=True)):
        count += len(block)
        if count > most:
            raise ValueError(f"it must last at most {most_seconds:g} seconds; it lasts longer")
        blocks.append(block.mean(1, dtype=np.float32))
    if not count:
        raise ValueError("it has no samples")
    return np.concatenate(blocks)


def _check_samples(samples: np.ndarray, rate: int, shortest_seconds: float) -> None:
    if not np.isfinite(samples).all():
        raise ValueError("its samples must be finite numbers; some are not")
    if (largest := float(np.abs(samples).max())) > LOUDEST:
        raise ValueError(f"its samples must be within [-1, 1]; the largest magnitude is {largest:.3g}")
    if largest <= QUIET:
        raise ValueError("it is silent")
    if (seconds := len(samples) / rate) < shortest_seconds:
        raise ValueError(f"it must last at least {shortest_seconds:g} seconds; it lasts {seconds:.3g}")
