"""A cell that makes a network and computes its loss. Also part of bare scripts: nothing of Assay is imported here."""

import time
from contextlib import suppress

import torch
from torch import nn


def loss(seed: int, mark: str) -> float:
    """The loss of a new network on random images. The time at which the first one was known is in the file `mark`."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 32 * 32, 10))
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    value = nn.functional.cross_entropy(network(images), labels).item()
    with suppress(FileExistsError), open(mark, "x") as first:
        first.write(f"{time.time()}\n")
    return value
