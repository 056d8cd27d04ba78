"""A small network of the user's own."""

import torch
from torch import nn


def build(width: int = 5) -> nn.Module:
    """Of points of the plane."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))


def sharp() -> nn.Module:
    """One that is wrong about some of its points, and sure of it."""
    network = build(8)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 30
    return network
