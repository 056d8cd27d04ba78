"""Sounds at another number of samples a second."""

from torch import Tensor


def resampled(samples: Tensor, rate: int, new_rate: int) -> Tensor:
    """samples: float (..., n) at `rate` a second. Returns (..., m), m = ceil(n * new_rate / rate), differentiably.

    By a windowed sinc (torchaudio's, with its defaults; Smith 2002).
    """
    if rate == new_rate:
        return samples
    from torchaudio.functional import resample  # few processes need it

    answer: Tensor = resample(samples, rate, new_rate)
    return answer
