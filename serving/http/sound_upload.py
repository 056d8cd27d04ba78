"""Uploaded sounds: the body of a request as the input of a model.

curl --data-binary @word.wav -H 'Content-Type: audio/wav' http://localhost:8000/v2/models/words/infer
"""

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import soundfile
import torch

from jobs.common.audio.files import read
from jobs.common.audio.levels import at_loudness
from jobs.common.audio.resampling import MOST_OF_FILTER, filter_size
from serving.http.tensors import Array

BYTES_OF_SAMPLE = 16  # of one channel: decoded, joined, resampled, and as a tensor
BYTES_OF_FILTER = 32  # of each number of the filter between two rates, while it is computed


@dataclass(frozen=True)
class SoundUpload:
    """How an uploaded sound becomes the input of a model.

    rate: samples a second that the model takes. samples: of its clips; None: a sound is taken whole, as loud as it is.
    most_seconds: of the upload.
    """

    medium: ClassVar[str] = "audio"

    input: str
    rate: int
    samples: int | None
    most_seconds: float

    def memory(self, body: bytes) -> int:
        try:
            with soundfile.SoundFile(io.BytesIO(body)) as sound:
                most = round(self.most_seconds * sound.samplerate)
                samples: int = most if sound.format == "MP3" else min(sound.frames, most)
                samples += round(samples * self.rate / sound.samplerate)
                filtered = min(filter_size(sound.samplerate, self.rate), MOST_OF_FILTER)
        except Exception:  # `read` says what is wrong
            samples = filtered = 0
        return len(body) + BYTES_OF_SAMPLE * samples + BYTES_OF_FILTER * filtered

    def read(self, body: bytes) -> Array:
        """A sound as FP32 (1, samples) in [-1, 1]: its middle where clips are shorter, and as loud as all clips are.

        InputError says what is wrong with it.
        """
        sound = read(io.BytesIO(body), "the uploaded sound", self.most_seconds).at_rate(self.rate).samples
        if self.samples is None:
            whole: Array = sound.clamp(-1, 1)[None].numpy()  # lossy decoders and filters go a little beyond it
            return whole
        start = max(0, (len(sound) - self.samples) // 2)
        middle = at_loudness(sound[start : start + self.samples])
        before = (self.samples - len(middle)) // 2
        padded = torch.zeros(self.samples)
        padded[before : before + len(middle)] = middle
        array: Array = padded[None].numpy()
        return np.ascontiguousarray(array)
