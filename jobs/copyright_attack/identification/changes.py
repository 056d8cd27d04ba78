"""What happens to a query on its way: it is short, noisy, faster or slower, higher or lower. One excerpt at a time."""

import numpy as np
import scipy

SIZE, HOP = 1024, 256  # samples, of the transform that a change of pitch is made by


def excerpt(sound: np.ndarray, rate: int, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """A part of a sound from a place drawn at random; all of it, if it is no longer. sound: float (samples,)."""
    length = round(seconds * rate)
    start = int(generator.integers(0, max(len(sound) - length, 0) + 1))
    return sound[start : start + length]


def with_noise(sound: np.ndarray, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """White Gaussian noise added, so that the sound has so many decibels more power than it. Silence stays silent.

    What then goes beyond full scale is turned down, sound and noise alike.
    """
    noise = generator.standard_normal(len(sound))
    power = np.square(sound, dtype=np.float64).mean()
    scale = np.sqrt(power / np.square(noise).mean()) * 10 ** (-decibels / 20)
    mixture = sound + scale * noise
    changed: np.ndarray = (mixture / max(1.0, np.abs(mixture).max())).astype(np.float32)
    return changed


def faster(sound: np.ndarray, percent: float) -> np.ndarray:
    """Played faster by so many percent, below 0 slower: pitch goes with it, as on a turntable."""
    length = max(1, round(len(sound) / (1 + percent / 100)))
    changed: np.ndarray = scipy.signal.resample(sound, length).astype(np.float32)
    return changed


def higher(sound: np.ndarray, semitones: float) -> np.ndarray:
    """Higher by so many semitones, below 0 lower, in the same time: made longer, then played faster.

    Sounds shorter than a window are returned as they are.
    """
    if not semitones or len(sound) <= SIZE:
        return sound
    longer = stretched(sound, 2 ** (semitones / 12))
    changed: np.ndarray = scipy.signal.resample(longer, len(sound)).astype(np.float32)
    return changed


def stretched(sound: np.ndarray, ratio: float) -> np.ndarray:
    """As high, but `ratio` times as long: float64 (about ratio * samples,). sound: longer than a window.

    A phase vocoder: each frame turns on by what the sound turned within a hop at that place; bins around a peak keep
    their phases relative to it. Source: Laroche & Dolson 1999, "Improved phase vocoder time-scale modification of
    audio", section III (identity phase locking).
    """
    window = np.hanning(SIZE + 1)[:-1]
    padded = np.pad(sound.astype(np.float64), (SIZE, SIZE))
    count = int((len(sound) + SIZE) * ratio) // HOP
    places = np.round(np.arange(count) * HOP / ratio).astype(np.int64) + HOP  # of the frames in the padded sound
    places = places[places + SIZE <= len(padded)]
    frames = np.lib.stride_tricks.sliding_window_view(padded, SIZE)
    here, before = (np.fft.rfft(frames[at] * window, axis=1) for at in (places, places - HOP))
    phases, turned = np.angle(here), np.angle(here) - np.angle(before)
    magnitudes = np.abs(here)
    made = np.empty_like(phases)
    made[0] = phases[0]
    for number in range(1, len(places)):
        peak = _nearest_peaks(magnitudes[number])
        made[number] = (made[number - 1] + turned[number])[peak] + phases[number] - phases[number][peak]
    pieces = np.fft.irfft(magnitudes * np.exp(1j * made), SIZE, axis=1) * window
    longer, weights = np.zeros((2, HOP * len(places) + SIZE))
    for number, piece in enumerate(pieces):
        longer[number * HOP : number * HOP + SIZE] += piece
        weights[number * HOP : number * HOP + SIZE] += window**2
    start = round((SIZE - HOP) * ratio)
    return (longer / np.maximum(weights, 1e-3))[start : start + round(len(sound) * ratio)]


def _nearest_peaks(magnitudes: np.ndarray) -> np.ndarray:
    """For each bin the nearest one that is the largest of five: int64 (bins,)."""
    around = np.pad(magnitudes, 2, constant_values=-1.0)
    largest = np.max(np.lib.stride_tricks.sliding_window_view(around, 5), axis=1)
    peaks = np.nonzero(magnitudes == largest)[0]
    middles = (peaks[1:] + peaks[:-1] + 1) // 2
    return peaks[np.searchsorted(middles, np.arange(len(magnitudes)), "right")]
