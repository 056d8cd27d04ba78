"""A loss that takes its time, so that a run can be disturbed in the middle."""

from torch import Tensor
from torch.nn import functional

from tests.service.pace import pause


def slow_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """In nats, (batch,)."""
    pause(0.1)
    return functional.cross_entropy(logits, labels, reduction="none")
