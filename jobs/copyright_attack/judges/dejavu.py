"""A judge in the manner of dejavu: peaks of a spectrogram in squares, each paired with the next few.

Source: worldveil/dejavu, dejavu/config/settings.py and dejavu/logic/fingerprint.py, whose defaults these are; the code
is our own. Dejavu itself always names the best song: the rule that it has to be far ahead is ours.
"""

import numpy as np
import scipy

from jobs.copyright_attack.judges.base import Fingerprint, heard
from jobs.copyright_attack.judges.landmarks import LandmarkJudge, fingerprint_of

RATE = 44_100
SIZE, HOP = 4096, 2048
SQUARE = 21  # bins and frames on a side in which a peak is the largest
LOUDNESS = 10.0  # decibels of a peak at least, for samples of 16 bits
NEXT = 4  # peaks that a peak is paired with
MOST_FRAMES = 200  # between the two
FULL = 32_768
CHUNK = 256  # frames that are transformed together


class DejavuJudge(LandmarkJudge):
    name = "dejavu"
    title = "dejavu-like"
    rule = "at least 50 hashes in line, and five times as many as those of any other song"
    shortest = (SIZE + HOP) / RATE

    def fingerprint(self, sound: np.ndarray, rate: int) -> Fingerprint:
        samples = heard(sound, rate, RATE)
        whole = np.clip(np.round(samples * FULL), -FULL, FULL - 1)
        return fingerprint_of(*pairs(*peaks(decibels(whole))))

    def accepts(self, score: float, runner_up: float) -> bool:
        return score >= 50 and score >= 5 * runner_up


def decibels(samples: np.ndarray) -> np.ndarray:
    """The density of power as matplotlib's specgram has it: float64 (bins, frames); 0 where there is no power.

    samples: whole numbers of 16 bits (n,). A sound shorter than a window has no frames.
    """
    if len(samples) < SIZE:
        return np.zeros((SIZE // 2 + 1, 0))
    frames = np.lib.stride_tricks.sliding_window_view(samples, SIZE)[::HOP]
    window = np.hanning(SIZE)
    power = np.empty((SIZE // 2 + 1, len(frames)))
    for first in range(0, len(frames), CHUNK):
        spectrum = np.fft.rfft(frames[first : first + CHUNK] * window, axis=1)
        power[:, first : first + CHUNK] = (spectrum.real**2 + spectrum.imag**2).T
    power[1:-1] *= 2  # one side stands for both
    power /= RATE * np.square(window).sum()
    return 10 * np.log10(power, out=np.zeros_like(power), where=power > 0)


def peaks(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames and bins of the peaks, by time and then by frequency: int64 (peaks,) each. levels: (bins, frames)."""
    if not levels.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    largest = scipy.ndimage.maximum_filter(levels, size=SQUARE, mode="reflect")
    times, bins = np.nonzero(((levels == largest) & (levels > LOUDNESS)).T)
    return times, bins


def pairs(times: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of pairs and the frames in which they begin: int64 (pairs,) each. times, bins: of peaks, in order.

    A hash is the two bins and the frames between them; dejavu keeps the SHA-1 of the same three numbers.
    """
    hashes, starts = [], []
    for ahead in range(1, NEXT + 1):
        gap = times[ahead:] - times[:-ahead]
        near = gap <= MOST_FRAMES
        hashes.append(((bins[:-ahead] << 20) | (bins[ahead:] << 8) | gap)[near])
        starts.append(times[:-ahead][near])
    return np.concatenate(hashes), np.concatenate(starts)
