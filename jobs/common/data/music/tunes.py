"""Generated tunes: composed and synthesised from a seed, any number of them, of any length."""

import numpy as np
import torch
from torch import Tensor

from jobs.common.audio.files import Sound
from jobs.common.data.music.base import Songs, Source
from jobs.common.data.music.composition import DRUMS, composed
from jobs.common.data.music.instruments import BASSES, CHORDS, LEADS, Drums, reverberated

ROOMS = (0.3, 1.5)  # seconds of reverberation
ECHOES = (0.05, 0.3)
TUNING = 0.2  # semitones: standard deviation of what a tune is higher than another in the same key
SKINS = (0.8, 1.3)
DRUM_NAMES = sorted({name for pattern in DRUMS for name in pattern})


def tunes(source: Source) -> tuple[Songs, Songs]:
    """Tunes 0, 1, … in the database, and those after them, which are not. A tune depends on the seed and its number."""
    source.check_size("tunes")

    def songs(numbers: range) -> Songs:
        sounds = [
            source.song_of(Sound(tune(source.seed, each, source.seconds, source.rate), source.rate)) for each in numbers
        ]
        return Songs("tunes", source.rate, [f"tune {each}" for each in numbers], sounds)

    return songs(range(source.enrolled)), songs(range(source.enrolled, source.count))


def tune(seed: int, number: int, seconds: float, rate: int) -> Tensor:
    """One tune: float32 (samples,), of no certain loudness. seed, number: whole numbers from 0 on."""
    stream = np.random.default_rng((seed, number))
    played = {part: choices[stream.integers(len(choices))] for part, choices in _INSTRUMENTS.items()}
    room, echo = float(stream.uniform(*ROOMS)), float(stream.uniform(*ECHOES))
    tuning = TUNING * float(stream.standard_normal())
    drums = Drums(float(stream.uniform(*SKINS)), int(stream.integers(1 << 31)))
    written = composed(seconds, stream)

    samples = round(seconds * rate)
    sound = torch.zeros(samples)
    strokes = {name: drums.stroke(name, rate) for name in DRUM_NAMES}
    tones: dict[tuple[str, int, float], Tensor] = {}  # a tune repeats most of its notes
    for note in written.notes:
        start = round(note.start * rate)
        if start >= samples:
            continue
        if note.part in strokes:
            tone = strokes[note.part]
        else:
            key = note.part, note.pitch, note.length
            if key not in tones:
                tones[key] = played[note.part].tone(note.pitch + tuning, note.length, rate)
            tone = tones[key]
        end = min(samples, start + len(tone))
        sound[start:end].add_(tone[: end - start], alpha=note.loudness)
    return reverberated(sound, rate, room, echo, seed=int(stream.integers(1 << 31)))


_INSTRUMENTS = {"lead": LEADS, "chords": CHORDS, "bass": BASSES}
