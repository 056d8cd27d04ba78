"""Sounds that go through an MP3 file."""

import io

import numpy as np
import soundfile
import torch
from torch import Tensor

from jobs.common.audio.resampling import resampled
from service.errors import FieldError

RATES = ((32_000, 32, 320), (16_000, 8, 160), (0, 8, 64))
"""samples a second from which on, and the least and the greatest kbit/s: MPEG 1, 2 and 2.5, layer III"""
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
LONGEST_DELAY = 4_000  # samples by which a decoder may be late


def mp3(sound: Tensor, rate: int, kilobits: int) -> tuple[Tensor, float]:
    """A sound as an MP3 of a constant rate gives it back, in its old place, and the kbit/s that the file has.

    sound: (samples,) in [-1, 1]. kilobits: a second, from 8 to 320: the file has the nearest rate that there is for so
    many samples a second. Sounds of a rate that MP3 has not, or too few for so many bits, go through a higher one.
    """
    through = file_rate(rate, kilobits)
    low, high = next((low, high) for least, low, high in RATES if through >= least)
    data = io.BytesIO()
    soundfile.write(
        data,
        resampled(sound, rate, through).clamp(-1, 1).numpy(),
        through,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        # libsndfile: 0 is the highest rate, and nearly 1 the lowest
        compression_level=float(np.clip((high - kilobits) / (high - low), 0, 0.999)),
    )
    written = data.getbuffer().nbytes * 8 / 1000 / (len(sound) / rate)
    decoded = torch.from_numpy(soundfile.read(io.BytesIO(data.getvalue()), dtype="float32")[0])
    back = resampled(decoded, through, rate)
    return aligned(back, sound), written


def file_rate(rate: int, kilobits: int) -> int:
    """Samples a second of an MP3 of so many kbit/s for a sound of `rate`. FieldError if there is none."""
    for each in MP3_RATES:
        _, high = next((low, high) for least, low, high in RATES if each >= least)
        if each >= rate and kilobits <= high:
            return each
    raise FieldError("encodings", f"be at most 320 kbit/s for {rate:,} samples a second", kilobits)


def aligned(late: Tensor, original: Tensor) -> Tensor:
    """A sound moved to where it resembles another most, and as long: both (samples,). Decoders add silence in front."""
    size = len(late) + len(original)
    spectrum = torch.fft.rfft(late, size) * torch.fft.rfft(original, size).conj()
    likeness = torch.fft.irfft(spectrum, size)
    late_by = likeness[:LONGEST_DELAY]
    early_by = likeness[-LONGEST_DELAY:]
    delay = int(torch.cat([early_by, late_by]).argmax()) - len(early_by)
    moved = torch.nn.functional.pad(late, (-delay, 0)) if delay < 0 else late[delay:]
    return torch.nn.functional.pad(moved, (0, max(0, len(original) - len(moved))))[: len(original)]
