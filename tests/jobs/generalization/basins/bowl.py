"""Networks whose basins are known: quadratic bowls."""

import torch
from torch import Tensor, nn

from jobs.generalization.basins.stacked_loss import StackedLoss


class Bowl(nn.Module):
    """Answers every input with sum of curvature (w - w0)^2 / 2, w0 being its weights at the start."""

    def __init__(self, weight: Tensor, curvature: Tensor) -> None:
        """Both (filters, length)."""
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.ones(3, dtype=weight.dtype))  # which stays where it is
        self.register_buffer("start", weight.clone(), persistent=False)
        self.register_buffer("curvature", curvature, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, ...) -> (batch, 1)."""
        value = 0.5 * (self.curvature * (self.weight - self.start).square()).sum()
        return value.expand(len(inputs), 1)


def own_value(logits: Tensor, targets: Tensor) -> Tensor:
    """The answer is the loss."""
    return logits[:, 0]


def bowl_loss(bowl: Bowl) -> StackedLoss:
    """Over two inputs that say nothing."""
    return StackedLoss(bowl, torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), own_value)


def weights(filters: int, length: int, seed: int = 0) -> Tensor:
    """float64 (filters, length), whose filters have different norms."""
    stream = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.5, 2, filters, dtype=torch.float64)[:, None]
    return scale * torch.randn(filters, length, generator=stream, dtype=torch.float64)
