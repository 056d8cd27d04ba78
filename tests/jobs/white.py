"""A network that fails at one image of a set, for tests of what is said of it."""

import torch
from torch import Tensor, nn


class Failing(nn.Module):
    """A network that gives no numbers for white images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((1, 2, 3))
        return (means[:, None] * self.weight).masked_fill((means > 0.99)[:, None], torch.nan)


class GreyAndWhite:
    """As much of an image set as attacks look at: 6 grey images of class 1, the last one white."""

    labels = torch.ones(6, dtype=torch.int64)

    def __len__(self) -> int:
        return 6

    def images(self, rows: Tensor) -> Tensor:
        return torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 1.0])[rows].reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)
