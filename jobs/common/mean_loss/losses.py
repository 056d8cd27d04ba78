"""Losses of single images: what a surface is the mean of."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
"""logits (batch, classes) and labels int64 (batch,) -> a loss for each image (batch,)"""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """In nats. logits (batch, classes), labels int64 (batch,). Returns (batch,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


def mse(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over classes of (softmax - one-hot)^2, as in the released code of Li et al. 2018. Returns (batch,)."""
    one_hot = functional.one_hot(labels, logits.shape[1])
    return (logits.softmax(1) - one_hot).square().mean(1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse}
