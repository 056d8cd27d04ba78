"""Sounds at another number of samples a second."""

import math

from torch import Tensor

from service.errors import InputError

# Numbers of the filter between two rates. From 44,100 to 16,000 it has 70 thousand; from 44,101 it would have 700
# million, which take gigabytes.
MOST_OF_FILTER = 1_000_000


def filter_size(rate: int, new_rate: int) -> int:
    """How many numbers the filter between two rates has, about: their product, each divided by what they share."""
    common = math.gcd(rate, new_rate)
    return (rate // common) * (new_rate // common)


def resampled(samples: Tensor, rate: int, new_rate: int) -> Tensor:
    """samples: float (..., n) at `rate` a second. Returns (..., m), m = ceil(n * new_rate / rate), differentiably.

    By a windowed sinc (torchaudio's, with its defaults; Smith 2002). InputError if the filter would be too large.
    """
    if rate == new_rate:
        return samples
    if filter_size(rate, new_rate) > MOST_OF_FILTER:
        raise InputError(
            f"a sound of {rate:,} samples a second cannot be brought to {new_rate:,}: they have too little in common",
            f"take {new_rate:,} for both, or usual rates as 16,000 and 44,100",
        )
    from torchaudio.functional import resample  # few processes need it

    answer: Tensor = resample(samples, rate, new_rate)
    return answer
