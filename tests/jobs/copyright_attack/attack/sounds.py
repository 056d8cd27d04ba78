"""Sounds that are made for tests: tones that begin and end, at 8 kHz."""

import math

import torch
from torch import Tensor

RATE = 8000


def melody(seed: int, seconds: float = 2.0, rate: int = RATE) -> Tensor:
    """A melody of decaying tones with harmonics, float32 (samples,) as 16 bits hold it, loudest 0.5."""
    generator = torch.Generator().manual_seed(seed)
    count = round(seconds * rate)
    time = torch.arange(count, dtype=torch.float64) / rate
    sound = 0.003 * torch.randn(count, generator=generator, dtype=torch.float64)
    for start in torch.arange(0, seconds, 0.1).tolist():
        for _ in range(3):
            pitch = 120 * 2 ** (4 * float(torch.rand(1, generator=generator)))
            passed = (time - start).clamp(min=0)
            tone = sum(torch.sin(2 * math.pi * pitch * k * passed) / k for k in (1, 2, 3) if pitch * k < rate / 2)
            sound += (time >= start) * (-8 * passed).exp() * tone
    return ((0.5 * sound / sound.abs().max()) * 32767).round().div(32767).float()


def melodies(count: int, seconds: float = 2.0) -> Tensor:
    """(count, samples)."""
    return torch.stack([melody(seed, seconds) for seed in range(count)])
