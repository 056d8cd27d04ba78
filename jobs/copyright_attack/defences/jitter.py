"""Jittered peaks: what a query is looked up by is drawn anew for each query, so that no attacker knows it."""

import zlib

import numpy as np

from jobs.copyright_attack.defences.params import JitterParams
from jobs.copyright_attack.judges.base import Fingerprint, heard
from jobs.copyright_attack.judges.landmarks import fingerprint_of
from jobs.copyright_attack.judges.wang import RATE, Constellation, WangJudge, pairs, peaks, spectrum


class JitteredWangJudge(WangJudge):
    """Songs are enrolled as by `WangJudge`; a query is looked up by several constellations at the same time."""

    name = "wang_jittered"
    title = "Wang-like, jittered"

    def __init__(self, jitter: JitterParams, seed: int) -> None:
        """seed: the secret that, with the query, decides what is drawn."""
        super().__init__()
        self.jitter, self.seed = jitter, seed

    def query(self, sound: np.ndarray, rate: int) -> Fingerprint:
        magnitudes = spectrum(heard(sound, rate, RATE))
        generator = np.random.default_rng([self.seed, zlib.crc32(sound.tobytes())])
        found = [pairs(*peaks(magnitudes, self.constellation))]
        for _ in range(self.jitter.copies):
            times, bins = peaks(magnitudes, self._drawn(generator))
            found.append(pairs(*moved(times, bins, magnitudes.shape, self.jitter, generator)))
        return fingerprint_of(*_once(found))

    def _drawn(self, generator: np.random.Generator) -> Constellation:
        """Smaller neighbourhoods and another density than the judge's own."""
        own, (low, high) = self.constellation, self.jitter.density
        return Constellation(
            bins=int(generator.integers(max(1, own.bins // 2), own.bins + 1)),
            frames=int(generator.integers(max(1, own.frames // 2), own.frames + 1)),
            density=max(1, round(own.density * float(generator.uniform(low, high)))),
        )


def moved(
    times: np.ndarray, bins: np.ndarray, shape: tuple[int, ...], jitter: JitterParams, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Peaks each moved by itself within the bounds of the jitter and of a spectrogram, in order again.

    times, bins: int64 (peaks,). shape: bins and frames of the spectrogram.
    """
    times = times + generator.integers(-jitter.frames, jitter.frames + 1, len(times))
    bins = bins + generator.integers(-jitter.bins, jitter.bins + 1, len(bins))
    inside = (times >= 0) & (times < shape[1]) & (bins >= 0) & (bins < shape[0])
    times, bins = times[inside], bins[inside]
    order = np.lexsort((bins, times))
    return times[order], bins[order]


def _once(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and times of all copies; a hash counts once at a time, however many copies have it."""
    both = np.unique(np.concatenate([np.stack(each, 1) for each in found]), axis=0)
    return both[:, 0], both[:, 1]
