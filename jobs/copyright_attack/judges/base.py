"""What every judge is: songs are enrolled, a query is compared with all of them, and a rule decides."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch

from jobs.common.audio.resampling import resampled
from service.errors import FieldError, InputError

Fingerprint = dict[str, np.ndarray]
"""of one sound: arrays by name, which may be empty where there is nothing to be heard"""

RATES = (4_000, 192_000)
LOUDEST = 1000.0  # full scale is 1; what is beyond it is turned down, as a recording would be
LONGEST = 600.0  # seconds


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a query."""

    song: str | None
    """the enrolled song that is most like it; None if nothing of any song was found in it"""
    score: float
    """of that song, higher is more alike; in the unit of the judge"""
    runner_up: float
    """of the second one; 0 if fewer than two songs are enrolled"""
    identified: bool
    """whether the judge's own rule takes the query for that song"""


class Judge(ABC):
    """Identifies songs. Its children know nothing of the fingerprint that is attacked.

    A judge can be pickled, songs and all. Making one costs nothing and needs no program: `available` says whether it
    can work here.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """what figures call it"""
    unit: ClassVar[str]
    """of its scores"""
    rule: ClassVar[str]
    """when it takes a query for a song, in words"""
    shortest: ClassVar[float]
    """seconds below which nothing can be compared"""

    def __init__(self) -> None:
        self._songs: dict[str, Fingerprint] = {}

    def available(self) -> str | None:
        """None, or one sentence why it cannot work here and what to do about it."""
        return None

    @property
    def version(self) -> str:
        """Of the program or package that does the work; empty if it is our own code."""
        return ""

    @abstractmethod
    def fingerprint(self, sound: np.ndarray, rate: int) -> Fingerprint:
        """What is kept of a sound. sound: float (samples,), full scale is 1. Silence has an empty one."""

    def query(self, sound: np.ndarray, rate: int) -> Fingerprint:
        """What a query is compared by: as a song, unless a defence makes it otherwise."""
        return self.fingerprint(sound, rate)

    @abstractmethod
    def scores(self, query: Fingerprint) -> np.ndarray:
        """How like the query each enrolled song is: float64 (songs,), in the order of `songs`."""

    @abstractmethod
    def accepts(self, score: float, runner_up: float) -> bool:
        """The judge's own rule: whether the best song is the one."""

    @property
    def songs(self) -> tuple[str, ...]:
        """Enrolled, in their order."""
        return tuple(self._songs)

    @property
    def bytes(self) -> int:
        """That the fingerprints of all enrolled songs take."""
        return sum(array.nbytes for each in self._songs.values() for array in each.values())

    def add(self, name: str, fingerprint: Fingerprint) -> None:
        """Enrol a song by its fingerprint. InputError if there is one of that name."""
        if name in self._songs:
            raise InputError(f"{self.name}: a song named {name!r} is enrolled already")
        self._songs[name] = fingerprint

    def enrol(self, sounds: Mapping[str, np.ndarray], rate: int) -> None:
        """Enrol songs: float (samples,) each, by name, at so many samples a second."""
        for name, sound in sounds.items():
            self.add(name, self.fingerprint(sound, rate))

    def judge(self, query: np.ndarray, rate: int) -> Verdict:
        """Which song a sound is of. query: float (samples,)."""
        return self.verdict(self.scores(self.query(query, rate)))

    def verdict(self, scores: np.ndarray) -> Verdict:
        """What is said where songs have these scores, (songs,). Of equal scores the first song counts."""
        if not len(scores) or not scores.max() > 0:
            return Verdict(None, 0.0, 0.0, False)
        best = int(scores.argmax())
        others = np.delete(scores, best)
        score, runner_up = float(scores[best]), float(others.max()) if len(others) else 0.0
        return Verdict(self.songs[best], score, runner_up, self.accepts(score, runner_up))

    def of_first(self, count: int) -> Self:
        """The same judge with only the songs that were enrolled first. FieldError if there are fewer."""
        if not 1 <= count <= len(self._songs):
            raise FieldError("songs", f"be from 1 to {len(self._songs)}, the number that is enrolled", count)
        smaller = copy(self)
        smaller._songs = dict(list(self._songs.items())[:count])
        return smaller


def heard(sound: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """A sound as a judge hears it: float32 (samples,) at the rate of the judge, without its constant part.

    One that is beyond full scale is turned down: a file could not hold it.

    InputError, naming what is wrong, if it is no sound.
    """
    if sound.ndim != 1 or not np.issubdtype(sound.dtype, np.floating):
        raise InputError(f"a sound must be float (samples,); it is {sound.dtype} {sound.shape}")
    if not len(sound):
        raise InputError("a sound must have samples; it has none")
    if not RATES[0] <= rate <= RATES[1]:
        raise FieldError("rate", f"be from {RATES[0]:,} to {RATES[1]:,} samples a second", rate)
    if len(sound) > LONGEST * rate:
        raise InputError(f"a sound must last at most {LONGEST:g} seconds; it lasts {len(sound) / rate:.0f}")
    if not np.isfinite(sound).all():
        raise InputError("the samples of a sound must be finite numbers; some are not")
    if (largest := float(np.abs(sound).max())) > LOUDEST:
        raise InputError(f"the samples of a sound must be about within [-1, 1]; the largest is {largest:.3g}")
    centred = (sound / max(largest, 1.0)).astype(np.float64)
    centred = (centred - centred.mean()).astype(np.float32)
    changed: np.ndarray = resampled(torch.from_numpy(centred), rate, new_rate).numpy()
    return changed
