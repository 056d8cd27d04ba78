"""A judge in the manner of Wang 2003: a constellation of peaks, an anchor with the next peaks in a zone ahead of it.

The article fixes neither the spectrogram nor the density; those here are ours, and so is the rule: it asks for a
tallest bin that wrong songs do not reach.

Source: Wang 2003, "An industrial-strength audio search algorithm" (ISMIR), sections 2.1 to 2.3.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from jobs.copyright_attack.judges.base import Fingerprint, heard
from jobs.copyright_attack.judges.landmarks import LandmarkJudge, fingerprint_of

RATE = 11_025
SIZE, HOP = 1024, 512
ZONE_FRAMES, ZONE_BINS = 63, 127  # how far ahead, and how far up or down, the other peak of a pair may be
FAN = 10  # pairs of an anchor at most, the nearest in time
QUIET = 1e-4  # of full scale: a magnitude below it is no peak
LEAST = 8  # hashes in line


@dataclass(frozen=True)
class Constellation:
    """Which points of a spectrogram are peaks."""

    bins: int = 7
    """on each side in which a peak is the largest"""
    frames: int = 3
    """the same in time"""
    density: int = 30
    """peaks in each second, the largest ones"""


class WangJudge(LandmarkJudge):
    name = "wang"
    title = "Wang-like"
    rule = f"at least {LEAST} hashes in line, and twice as many as those of any other song"
    shortest = 1.0
    constellation = Constellation()

    def fingerprint(self, sound: np.ndarray, rate: int) -> Fingerprint:
        magnitudes = spectrum(heard(sound, rate, RATE))
        return fingerprint_of(*pairs(*peaks(magnitudes, self.constellation)))

    def accepts(self, score: float, runner_up: float) -> bool:
        return score >= LEAST and score >= 2 * runner_up


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Magnitudes, of a tone its amplitude: float64 (bins, frames). samples: (n,); less than a window has no frames."""
    if len(samples) < SIZE:
        return np.zeros((SIZE // 2 + 1, 0))
    frames = np.lib.stride_tricks.sliding_window_view(samples, SIZE)[::HOP]
    window = np.hanning(SIZE + 1)[:-1]
    return np.abs(np.fft.rfft(frames * (2 * window / window.sum()), axis=1)).T


def peaks(magnitudes: np.ndarray, constellation: Constellation) -> tuple[np.ndarray, np.ndarray]:
    """Frames and bins of the peaks, by time and then by frequency: int64 (peaks,) each. magnitudes: (bins, frames)."""
    if not magnitudes.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    square = (2 * constellation.bins + 1, 2 * constellation.frames + 1)
    largest = scipy.ndimage.maximum_filter(magnitudes, size=square, mode="nearest")
    times, bins = np.nonzero(((magnitudes == largest) & (magnitudes > QUIET)).T)
    seconds = times * HOP // RATE
    order = np.lexsort((-magnitudes[bins, times], seconds))  # the largest of each second first
    rank = np.arange(len(order)) - np.searchsorted(seconds[order], seconds[order], "left")
    kept = np.sort(order[rank < constellation.density])
    return times[kept], bins[kept]


def pairs(times: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of pairs and the frames of their anchors: int64 (pairs,) each. times, bins: of peaks, in order.

    A hash is both bins, 10 bits each, and the frames between them, 6 bits.
    """
    hashes, starts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    used = np.zeros(len(times), np.int64)  # pairs of each anchor
    for ahead in range(1, len(times)):
        gap = times[ahead:] - times[:-ahead]
        if gap.min() > ZONE_FRAMES:
            break
        apart = np.abs(bins[ahead:] - bins[:-ahead])
        inside = (gap >= 1) & (gap <= ZONE_FRAMES) & (apart <= ZONE_BINS) & (used[:-ahead] < FAN)
        used[:-ahead] += inside
        hashes.append(((bins[:-ahead] << 16) | (bins[ahead:] << 6) | gap)[inside])
        starts.append(times[:-ahead][inside])
    return np.concatenate(hashes), np.concatenate(starts)
