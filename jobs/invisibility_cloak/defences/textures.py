"""Patches that nobody optimised, of all kinds: noise of any spectrum, blocks, stripes of colour. All in [0, 1]."""

import torch
from torch import Tensor
from torch.nn import functional

STEEPEST = 2.0  # power of the frequency that amplitudes fall with
LARGEST_BLOCK = 12  # pixels


def texture(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A random picture: (3, height, width). Half are noise of some spectrum, half are blocks."""
    kind, steepness, contrast, block = torch.rand(4, generator=generator).tolist()
    if kind < 0.5:
        values = _coloured_noise(size, STEEPEST * steepness, generator)
    else:
        values = _blocks(size, 1 + int(block * LARGEST_BLOCK), generator)
    # colours of their own: a random mixture of channels, from grey to saturated
    mixture = torch.eye(3) + 1.5 * (torch.rand(3, 3, generator=generator) - 0.5)
    mixed = torch.einsum("ij,jhw->ihw", mixture, values - values.mean((1, 2), keepdim=True))
    mixed = mixed / mixed.std().clamp_min(1e-6) * (0.1 + 0.4 * contrast)
    level = 0.2 + 0.6 * torch.rand(3, 1, 1, generator=generator)
    return torch.clamp(level + mixed, 0, 1)


def _coloured_noise(size: tuple[int, int], steepness: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise, amplitudes divided by the frequency to a power: (3, height, width)."""
    spectrum = torch.fft.rfft2(torch.randn(3, *size, generator=generator))
    down, across = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None]
    frequency = torch.hypot(down, across).clamp_min(1 / max(size))
    noise: Tensor = torch.fft.irfft2(spectrum / frequency**steepness, size)
    return noise


def _blocks(size: tuple[int, int], block: int, generator: torch.Generator) -> Tensor:
    """Uniform noise in squares of some pixels: (3, height, width)."""
    coarse = torch.rand(1, 3, -(-size[0] // block), -(-size[1] // block), generator=generator)
    return functional.interpolate(coarse, scale_factor=float(block))[0, :, : size[0], : size[1]]
