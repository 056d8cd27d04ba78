"""Two judges by Chromaprint, which hears chords and not peaks: the program fpcalc makes items of 32 bits of a sound.

`ChromaprintJudge` decides as the library's own matcher: it takes the shift at which most items agree in their highest
12 bits, and counts the bits that differ there. `AcoustidJudge` decides as the comparison of the AcoustID server: the
share of items that differ in at most 2 bits at the best shift. Nothing is sent to anybody.

Source: acoustid/chromaprint, src/fingerprint_matcher.cpp (alignment, threshold of 10 bits; its division of a match into
segments is left out: a query here is one excerpt); acoustid/pg_acoustid, acoustid_compare.c. The code is our own.
"""

import json
from abc import abstractmethod
from functools import cache
from pathlib import Path

import numpy as np

from jobs.copyright_attack.judges.base import Fingerprint, Judge, heard
from jobs.copyright_attack.judges.programs import SoundFolder, completed, found, reason
from service.errors import AssayError, InputError, RunFailedError

PROGRAM = "fpcalc"
HINT = "apt-get install libchromaprint-tools"
ACCEPTED = (
    0,
    3,
)  # 3: the end of a file came as an error, and the fingerprint is whole (acoustid/chromaprint, issue 137)
EMPTY = 2  # exit status of a sound that is too short for an item
SILENCE = 627_964_279  # the item of digital silence, which AcoustID leaves out as well
BITS = 32
ALIGNED_BITS = 12
MOST_BITS = 10.0  # of an item that differ in the mean, below which the matcher sees one recording
ALIKE_BITS = 2
SHARE = (
    0.1  # of the items of a query that are alike: AcoustID publishes no threshold, and unrelated tunes stay below .01
)


class FpcalcJudge(Judge):
    """A judge that compares fingerprints of fpcalc. Its children say how."""

    shortest = 3.0

    def available(self) -> str | None:
        return _problem()

    @property
    def version(self) -> str:
        return _version(_program())

    def fingerprint(self, sound: np.ndarray, rate: int) -> Fingerprint:
        """items: uint32 (n,), 8 a second; InputError if fpcalc is not there, RunFailedError if it fails."""
        program = _program()
        with SoundFolder(heard(sound, rate, rate), rate) as folder:
            done = completed(program, ["-raw", "-json", "-length", "0", SoundFolder.NAME], folder)
        if done.returncode == EMPTY:
            return {"items": np.zeros(0, np.uint32)}
        if done.returncode not in ACCEPTED:
            raise RunFailedError(f"{PROGRAM} failed: {reason(done)}")
        return {"items": _items(done.stdout)}

    def scores(self, query: Fingerprint) -> np.ndarray:
        return np.array([self.likeness(query["items"], song["items"]) for song in self._songs.values()], np.float64)

    @staticmethod
    @abstractmethod
    def likeness(query: np.ndarray, song: np.ndarray) -> float:
        """In [0, 1]. query, song: uint32 (items,)."""


class ChromaprintJudge(FpcalcJudge):
    name = "chromaprint"
    title = "Chromaprint"
    unit = "share of equal bits"
    rule = f"fewer than {MOST_BITS:g} of {BITS} bits differ at the shift at which most items begin alike"

    @staticmethod
    def likeness(query: np.ndarray, song: np.ndarray) -> float:
        return bit_agreement(query, song)

    def accepts(self, score: float, runner_up: float) -> bool:
        return score > 1 - MOST_BITS / BITS


class AcoustidJudge(FpcalcJudge):
    name = "acoustid"
    title = "AcoustID-like"
    unit = "share of items alike"
    rule = f"at least {SHARE:.0%} of the items differ in at most {ALIKE_BITS} bits at the best shift"

    @staticmethod
    def likeness(query: np.ndarray, song: np.ndarray) -> float:
        return items_alike(query, song)

    def accepts(self, score: float, runner_up: float) -> bool:
        return score >= SHARE


def bit_agreement(query: np.ndarray, song: np.ndarray) -> float:
    """The share of equal bits at the shift at which most items agree in their highest 12 bits; 0 if no two do.

    Only shifts count at which at least two items agree and half of the shorter one overlaps with the other. Of equal
    shifts the later one counts, as in the library. query, song: uint32 (items,).
    """
    shifts = _shifts(_audible(query)[:, None] & _audible(song)[None] & (_start(query)[:, None] == _start(song)[None]))
    least = min(len(query), len(song)) / 2
    for shift in sorted(range(len(shifts)), key=lambda each: (-shifts[each], -each)):
        if shifts[shift] < 2:
            break
        first, second = _overlap(query, song, shift - len(song) + 1)
        if len(first) >= least:
            return 1 - float(np.bitwise_count(first ^ second).mean()) / BITS
    return 0.0


def items_alike(query: np.ndarray, song: np.ndarray) -> float:
    """The largest number, over all shifts, of items that differ in at most 2 bits, as a share of the shorter one.

    query, song: uint32 (items,). Items of silence are alike to nothing.
    """
    if not len(query) or not len(song):
        return 0.0
    alike = np.bitwise_count(query[:, None] ^ song[None]) <= ALIKE_BITS
    alike &= _audible(query)[:, None] & _audible(song)[None]
    return float(_shifts(alike).max()) / min(len(query), len(song))


def _shifts(alike: np.ndarray) -> np.ndarray:
    """How many pairs lie on each diagonal: int64 (n + m - 1,), of i - j from -(m - 1) on. alike: bool (n, m)."""
    first, second = np.nonzero(alike)
    n, m = alike.shape
    return np.bincount(first - second + m - 1, minlength=max(n + m - 1, 1))


def _overlap(query: np.ndarray, song: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """The items that meet where item j of the song is under item j + shift of the query."""
    first, second = query[max(shift, 0) :], song[max(-shift, 0) :]
    count = min(len(first), len(second))
    return first[:count], second[:count]


def _start(items: np.ndarray) -> np.ndarray:
    return items >> (BITS - ALIGNED_BITS)


def _audible(items: np.ndarray) -> np.ndarray:
    audible: np.ndarray = items != SILENCE
    return audible


def _items(output: str) -> np.ndarray:
    try:
        items = np.array(json.loads(output)["fingerprint"], dtype=np.int64)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunFailedError(f"{PROGRAM} printed no fingerprint: {output[:80]!r}") from error
    return (items & 0xFFFFFFFF).astype(np.uint32)


def _program() -> Path:
    """InputError if fpcalc is not there."""
    if (program := found(PROGRAM)) is None:
        raise InputError(f"the judges by Chromaprint need the program {PROGRAM}", hint=HINT)
    return program


def _problem() -> str | None:
    try:
        _version(_program())
    except AssayError as error:
        return str(error)
    return None


@cache
def _version(program: Path) -> str:
    """As "1.5.1". InputError if it cannot be run: its libraries may be missing."""
    done = completed(program, ["-version"])
    words = done.stdout.split()
    if done.returncode or len(words) < 3:
        raise InputError(f"the judges by Chromaprint: {PROGRAM} cannot be run: {reason(done)}", hint=HINT)
    return words[2]
