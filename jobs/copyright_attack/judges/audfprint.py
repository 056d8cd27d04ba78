"""A judge by audfprint, the landmark matcher of Dan Ellis, in the maintained package audfprint2: its own classes.

What is set is what its command line sets: 20 landmarks a second, queries looked up at four shifts of a quarter of a
frame, counts over two frames on each side. It needs neither files nor FFmpeg, as sounds are there already.

Source: audfprint2 0.1.2 (MIT), after dpwe/audfprint.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import random
from typing import Any

import numpy as np

from jobs.copyright_attack.judges.base import Fingerprint, Judge, heard
from jobs.copyright_attack.judges.landmarks import fingerprint_of
from service.errors import InputError

PACKAGE = "audfprint2"
RATE = 11_025
FRAME, HOP = 512, 256  # samples
SHIFTS = 4  # of a query
DEPTH = 100  # songs and times that a hash of the table holds
WINDOW = 2  # frames on each side that are counted together
LEAST = 5  # landmarks at one shift, above which it calls two sounds alike


class AudfprintJudge(Judge):
    name = "audfprint"
    title = "audfprint"
    unit = "landmarks in line, of a match"
    rule = f"its own: more than {LEAST} landmarks at one shift; a song that is no match has the score 0"
    shortest = 1.0

    def __init__(self) -> None:
        super().__init__()
        self._table: tuple[int, Any] | None = None  # made when it is first needed, for so many songs

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_table": None}

    def available(self) -> str | None:
        if importlib.util.find_spec(PACKAGE) is None:
            return f"the judge audfprint needs the package {PACKAGE} (pip install 'assay[fingerprints]')"
        return None

    @property
    def version(self) -> str:
        return importlib.metadata.version(PACKAGE)

    def fingerprint(self, sound: np.ndarray, rate: int) -> Fingerprint:
        return _landmarks(heard(sound, rate, RATE), shifts=1)

    def query(self, sound: np.ndarray, rate: int) -> Fingerprint:
        return _landmarks(heard(sound, rate, RATE), SHIFTS)

    def scores(self, query: Fingerprint) -> np.ndarray:
        scores = np.zeros(len(self._songs))
        if not len(query["hashes"]):
            return scores
        if self._table is None or self._table[0] != len(self._songs):
            self._table = len(self._songs), _table(list(self._songs.values()))
        matcher = _module("matcher").Matcher()
        matcher.window, matcher.threshcount = WINDOW, LEAST
        pairs = np.stack([query["times"], query["hashes"]], 1).astype(np.int32)
        for song, count, *_ in matcher.match_hashes(self._table[1], pairs):
            scores[song] = max(scores[song], count)
        return scores

    def accepts(self, score: float, runner_up: float) -> bool:
        return score > 0


def _landmarks(samples: np.ndarray, shifts: int) -> Fingerprint:
    """The hashes of a sound, each once at a time. samples: (n,) at 11,025 Hz; fewer than a frame have none."""
    analyzer, pack = _module("analyzer").Analyzer(), _module("analyzer").landmarks2hashes
    found = [np.zeros((0, 2), np.int32)]
    for shift in range(shifts):
        part = samples[shift * HOP // shifts :].astype(np.float64)
        if len(part) >= FRAME and part.any():
            found.append(pack(analyzer.peaks2landmarks(analyzer.find_peaks(part, RATE))))
    pairs = np.unique(np.concatenate(found), axis=0)  # time and hash
    return fingerprint_of(pairs[:, 1], pairs[:, 0])


def _table(songs: list[Fingerprint]) -> Any:
    """The hash table of songs. What a full bucket drops is drawn by `random`, which is the same here every time."""
    fullest = np.bincount(np.concatenate([song["hashes"] for song in songs])).max(initial=1)
    table = _module("hash_table").HashTable(depth=int(min(DEPTH, fullest)))  # half a gigabyte at full depth
    state = random.getstate()
    random.seed(0)
    try:
        for place, song in enumerate(songs):
            table.store(str(place), list(zip(song["times"].tolist(), song["hashes"].tolist(), strict=True)))
    finally:
        random.setstate(state)
    return table


def _module(name: str) -> Any:
    """A part of the package. InputError if it is not installed.

    The package sets up the logging of the whole process when it is imported: it finds it set up already.
    """
    root, kept = logging.getLogger(), logging.NullHandler()
    root.addHandler(kept)
    try:
        return importlib.import_module(f"{PACKAGE}.core.{name}")
    except ImportError as error:
        hint = "pip install 'assay[fingerprints]'"
        raise InputError(f"the judge audfprint needs the package {PACKAGE}: {error}", hint) from error
    finally:
        root.removeHandler(kept)
