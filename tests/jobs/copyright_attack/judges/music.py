"""What the tests of judges listen to: a few short tunes, and what is no music."""

from functools import cache

import numpy as np

from jobs.common.data.music import MusicParams
from jobs.common.data.music.base import Songs

RATE = 11_025


@cache
def tunes() -> tuple[Songs, Songs]:
    """Four songs of 10 seconds that are enrolled, two that are not."""
    return MusicParams(enrolled=4, others=2, seconds=10.0, rate=RATE).load()


def arrays(songs: Songs) -> dict[str, np.ndarray]:
    return {name: sound.numpy() for name, sound in zip(songs.names, songs.sounds, strict=True)}


def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
