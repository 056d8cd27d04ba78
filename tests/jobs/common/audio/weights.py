"""Sounds to listen to in tests, and slopes of what listens."""

import torch
from torch import Tensor

from jobs.common.audio.files import read
from jobs.common.data.packages import MOONSHINE

RATE = 16_000


def beckett() -> Tensor:
    """Ten seconds of real speech: (samples,) at 16 kHz."""
    return read(MOONSHINE.path("beckett.wav"), "beckett.wav").at_rate(RATE).samples


def tone(hertz: float, seconds: float = 0.5) -> Tensor:
    """A sine: (samples,) at 16 kHz."""
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def slope(network: torch.nn.Module, layer: str, sound: Tensor) -> tuple[float, float]:
    """The slope of a layer's mean square along a random direction, by autograd and by central differences in float64.

    Both are of the network in double precision.
    """
    network, sound = network.double(), sound.double()[None]
    direction = torch.randn(sound.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction /= direction.norm()

    def value(step: float) -> Tensor:
        return network.activations(sound + step * direction, [layer])[layer].square().mean()

    moving = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (analytic,) = torch.autograd.grad(value(moving), moving)
    with torch.no_grad():
        numeric = (value(1e-6) - value(-1e-6)) / 2e-6
    return float(analytic), float(numeric)
