"""What a lossy coder does to a sound, differentiably: a lapped transform, a low-pass, and noise of rounding that hides.

It is no MP3: there is one length of frames, no rate is kept, and nothing is packed into bits. What an attack has to
survive is the same: what lies above the cut-off or below the masking threshold is gone.

Sources: Princen, Johnson, Bradley 1987 (the transform); Brandenburg 1999, "MP3 and AAC explained" (what a coder does).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from jobs.copyright_attack.attack.masking import bands_of, thresholds

SIZE = 576
"""coefficients of a frame, as in layer III"""


def mdct(sounds: Tensor) -> Tensor:
    """The modified cosine transform: (batch, samples) to (batch, frames, SIZE). `inverse_mdct` undoes it.

    Orthonormal: the squares have the sum that those of the samples have.
    """
    batch, samples = sounds.shape
    after = SIZE + (-samples) % SIZE
    padded = torch.nn.functional.pad(sounds, (SIZE, after))
    halves = padded.view(batch, -1, SIZE)
    frames = torch.cat([halves[:, :-1], halves[:, 1:]], 2)  # (batch, frames, 2 SIZE)
    return frames @ _kernels().to(sounds)


def inverse_mdct(coefficients: Tensor, samples: int) -> Tensor:
    """(batch, frames, SIZE) to (batch, samples): what overlaps cancels its aliases."""
    parts = coefficients @ _kernels().T.to(coefficients)
    first, second = parts[..., :SIZE], parts[..., SIZE:]
    return (first[:, 1:] + second[:, :-1]).flatten(1)[:, :samples]


@lru_cache(maxsize=1)
def _kernels() -> Tensor:
    """Window and cosines, orthonormal: (2 SIZE, SIZE)."""
    time = torch.arange(2 * SIZE, dtype=torch.float64)[:, None]
    number = torch.arange(SIZE, dtype=torch.float64)
    angles = math.pi / SIZE * (time + 0.5 + SIZE / 2) * (number + 0.5)
    window = torch.sin(math.pi / (2 * SIZE) * (time + 0.5))
    return (math.sqrt(2 / SIZE) * window * angles.cos()).float()


def coded(sounds: Tensor, rate: int, cutoff: float, noise: float) -> Tensor:
    """Sounds as a coder gives them back: (batch, samples), differentiably.

    cutoff: hertz above which nothing is kept. noise: amplitude of the rounding relative to the masking threshold; 1: it
    is just not heard, more for a low rate. The gradient goes through the rounding as if it were not there.
    """
    coefficients = mdct(sounds)
    with torch.no_grad():
        neighbours = torch.nn.functional.pad(coefficients.square(), (0, 0, 1, 1))
        # a coefficient of one frame alone depends on the phase: the mean of three does so less
        powers = (neighbours[:, :-2] + 2 * neighbours[:, 1:-1] + neighbours[:, 2:]) / 4 * UNIT
        bands = bands_of(SIZE, rate)
        width = bands.members.sum(0).to(powers)
        allowed = noise**2 * thresholds(powers, rate) / width  # power of each coefficient's noise
        step = bands.spread((12 * allowed / UNIT).sqrt()).clamp(min=1e-9)
        error = (coefficients / step).round() * step - coefficients
        hertz = (torch.arange(SIZE) + 0.5) * rate / (2 * SIZE)
        kept = (hertz <= cutoff).to(sounds)
    return inverse_mdct((coefficients + error) * kept, sounds.shape[1])


UNIT = 0.5 / SIZE
"""from the square of an orthonormal coefficient to power as `thresholds` counts it: a sine has SIZE / 2, and SINE"""
