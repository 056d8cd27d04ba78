"""Hashes of songs with their times, and how many of them agree with a query at one shift in time.

Source: Wang 2003, "An industrial-strength audio search algorithm" (ISMIR): matching by a histogram of offsets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.copyright_attack.judges.base import Fingerprint, Judge

MOST_HITS = 1 << 22  # that are looked at together: a constant tone agrees with itself at every time


@dataclass(frozen=True)
class Index:
    """The hashes of all songs in order, int64, with the song and the frame of each, int32: (hashes,) each."""

    hashes: np.ndarray
    songs: np.ndarray
    times: np.ndarray
    count: int
    """songs"""

    @classmethod
    def of(cls, fingerprints: Sequence[Fingerprint]) -> "Index":
        """fingerprints: hashes, int64, and times, int32 in frames, of each song."""
        hashes = np.concatenate([each["hashes"] for each in fingerprints] or [np.zeros(0, np.int64)])
        times = np.concatenate([each["times"] for each in fingerprints] or [np.zeros(0, np.int32)])
        songs = np.repeat(np.arange(len(fingerprints), dtype=np.int32), [len(each["hashes"]) for each in fingerprints])
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], songs[order], times[order], len(fingerprints))

    def aligned(self, hashes: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Pairs of equal hashes at the shift that has most of them, of each song: int64 (songs,).

        hashes, times: of the query, (n,).
        """
        if not len(hashes) or not len(self.hashes):
            return np.zeros(self.count, np.int64)
        first = np.searchsorted(self.hashes, hashes, "left")
        hits = np.searchsorted(self.hashes, hashes, "right") - first  # of each hash of the query
        latest = int(times.max())
        span = int(self.times.max()) + latest + 1  # shifts that there can be
        histogram = np.zeros(self.count * span, np.int64)
        ends = np.cumsum(hits)
        for start in range(0, int(ends[-1]), MOST_HITS):
            hit = np.arange(start, min(start + MOST_HITS, int(ends[-1])))
            of = np.searchsorted(ends, hit, "right")  # which hash of the query
            place = first[of] + hit - (ends[of] - hits[of])
            shift = self.times[place].astype(np.int64) - times[of] + latest
            histogram += np.bincount(self.songs[place] * span + shift, minlength=len(histogram))
        tallest: np.ndarray = histogram.reshape(self.count, span).max(1)
        return tallest


class LandmarkJudge(Judge):
    """A judge that counts hashes in line. Its children say how a sound is hashed."""

    unit = "hashes in line"

    def __init__(self) -> None:
        super().__init__()
        self._index: tuple[int, Index] | None = None  # made when it is first needed, for so many songs

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_index": None}

    def scores(self, query: Fingerprint) -> np.ndarray:
        if self._index is None or self._index[0] != len(self._songs):
            self._index = len(self._songs), Index.of(list(self._songs.values()))
        return self._index[1].aligned(query["hashes"], query["times"]).astype(np.float64)


def fingerprint_of(hashes: np.ndarray, times: np.ndarray) -> Fingerprint:
    """hashes, times: integers (n,), times in frames."""
    return {"hashes": hashes.astype(np.int64), "times": times.astype(np.int32)}
