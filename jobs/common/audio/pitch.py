"""The pitch of a voice, by autocorrelation: for sounds of one voice without much noise.

Source: de Cheveigne & Kawahara 2002, "YIN", whose difference function and threshold are used.
"""

import torch
from torch import Tensor

LOW, HIGH = 45.0, 500.0  # hertz that are looked for
WINDOW = 0.04  # seconds of a frame
HOP = 0.01
THRESHOLD = 0.2  # of the normalised difference: below it a frame is voiced
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
