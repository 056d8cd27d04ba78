"""Random vectors that a matrix is asked with, each from a seed of its own: whatever their groups, they are the same."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rademacher(size: int, seeds: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Entries of -1 and 1, as likely: float64 (len(seeds), size)."""
    return torch.stack([2.0 * (_uniform(size, seed) < 0.5).double() - 1 for seed in seeds]).to(device)


def gaussian(size: int, seeds: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Standard normal entries: float64 (len(seeds), size)."""
    drawn = [torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)


def _uniform(size: int, seed: int) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))
