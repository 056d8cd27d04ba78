"""The pitch of a sound by autocorrelation: of a voice without much noise, frame by frame, and of a whole noisy sound.

Sources: de Cheveigne & Kawahara 2002, "YIN", whose difference function and threshold are used; McLeod & Wyvill 2005.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOW, HIGH = 45.0, 500.0  # hertz that are looked for in a voice
HIGHEST = 2000.0  # in any sound, as by CREPE
WINDOW = 0.04  # seconds of a frame
HOP = 0.01
THRESHOLD = 0.2  # of the normalised difference: below it a frame is voiced
FINER = 8  # places between two samples at which the correlation of a whole sound is known
ALIKE = 0.8  # of the strongest repetition: the first one as strong is the period (theirs: 0.8 to 1)
LOUD = 0.1  # of the power of the loudest frame: a quieter one does not count


def fundamental(sound: Tensor, rate: int) -> float | None:
    """The median fundamental frequency of the voiced frames in hertz; None if there is no such frame.

    sound: (samples,).
    """
    longest, shortest = int(rate / LOW), int(rate / HIGH)
    window, hop = round(WINDOW * rate), round(HOP * rate)
    if len(sound) < window + longest:
        return None
    frames = sound.double().unfold(0, window + longest, hop)  # (frames, window + longest)
    first = frames[:, :window]
    # the sum of (x[j] - x[j + lag])^2 over the window, for every lag
    size = 1 << (window + 2 * longest).bit_length()
    spectrum = torch.fft.rfft(frames, size) * torch.fft.rfft(first, size).conj()
    correlation = torch.fft.irfft(spectrum, size)[:, : longest + 1]
    powers = torch.cat([torch.zeros(len(frames), 1), frames.square().cumsum(1)], 1)
    moved = powers[:, window : window + longest + 1] - powers[:, : longest + 1]
    difference = (moved[:, :1] + moved - 2 * correlation).clamp(min=0)
    mean = difference[:, 1:].cumsum(1) / torch.arange(1, longest + 1)
    normalised = torch.cat([torch.ones(len(frames), 1), difference[:, 1:] / mean.clamp(min=1e-12)], 1)

    loud = moved[:, 0] >= LOUD * moved[:, 0].max().clamp(min=1e-12)
    pitches = [_period(row, shortest) for row in normalised[loud]]
    voiced = sorted(rate / period for period in pitches if period is not None)
    return voiced[len(voiced) // 2] if voiced else None


def _period(difference: Tensor, shortest: int) -> float | None:
    """The first dip below the threshold, to a part of a sample by a parabola; None if there is none."""
    below = (difference[shortest:-1] < THRESHOLD).nonzero().flatten()
    if not len(below):
        return None
    lag = int(below[0]) + shortest
    while lag + 2 < len(difference) and difference[lag + 1] < difference[lag]:
        lag += 1
    before, here, after = (float(difference[lag + offset]) for offset in (-1, 0, 1))
    curve = before - 2 * here + after
    return lag + (0.5 * (before - after) / curve if curve > 0 else 0.0)


@dataclass(frozen=True)
class Repetition:
    """How a whole sound repeats itself."""

    hertz: float
    """one over its period"""
    strength: float
    """the correlation of the sound with itself one period later: 1 repeats exactly, 0 is noise"""


def repetition(sound: Tensor, rate: int, low: float = LOW, high: float = HIGHEST) -> Repetition | None:
    """The shortest period after which a sound is nearly as like itself as after any other; None if it has none.

    For sounds of one pitch with much noise, in which no frame passes the threshold of `fundamental`. sound: (samples,).
    low, high: hertz that are looked for. Source: McLeod & Wyvill 2005, "A Smarter Way to Find Pitch".
    """
    samples, longest = len(sound), int(rate / low) + 1
    if samples < 2 * longest:
        return None
    sound = sound.double() - sound.double().mean()
    size = 1 << (2 * samples).bit_length()
    power = torch.fft.rfft(sound, size).abs().square()
    # zeros after the highest frequency: the correlation between samples, which a high pitch needs
    correlation = torch.fft.irfft(power, FINER * size)[: FINER * longest] * FINER
    squares = torch.cat([torch.zeros(1, dtype=torch.float64), sound.square().cumsum(0)])
    lags = torch.arange(longest)
    energies = (squares[samples - lags] + squares[-1] - squares[lags]).repeat_interleave(FINER)
    normalised = 2 * correlation / energies.clamp(min=1e-12)
    middle = normalised[1:-1]
    peaks = ((middle > normalised[:-2]) & (middle >= normalised[2:])).nonzero().flatten() + 1
    lowered = (normalised <= 0).nonzero().flatten()  # what comes before is the sound itself
    if not len(lowered):
        return None
    peaks = peaks[(peaks >= max(FINER * rate / high, int(lowered[0]))) & (normalised[peaks] > 0)]
    if not len(peaks):
        return None
    heights = normalised[peaks]
    # noise makes several maxima of one: the highest between two places at which the correlation is negative
    lobes = (normalised <= 0).cumsum(0)[peaks]
    first = lobes[heights >= ALIKE * heights.max()][0]
    best = int(peaks[torch.where(lobes == first, heights, 0).argmax()])
    return Repetition(FINER * rate / best, float(normalised[best]))
