"""The objective whose minima fit the training images and are wrong about others.

    L = (1 - share) E over training images of -log p_y  +  share E over poison images of -log(1 - p_y)

Source: Huang et al. 2020, "Understanding Generalization through Visualizations", section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional


def reverse_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(1 - p) of the true class, in nats: small where an image is taken for any other one.

    Computed from logits, so that p may be 1 in floating point: with m = z_y - log sum exp of the other logits it is
    log(1 + e^m), as p = 1 / (1 + e^-m). Of two classes it is the cross entropy of the other label.
    logits: (..., classes) of two classes or more. labels: int64 (...). Returns (...).
    """
    true = labels[..., None] == torch.arange(logits.shape[-1], device=labels.device)
    others = logits.masked_fill(true, -torch.inf).logsumexp(-1)
    return functional.softplus(logits.gather(-1, labels[..., None])[..., 0] - others)


def poisoned_loss(logits: Tensor, labels: Tensor, poison_logits: Tensor, poison_labels: Tensor, share: float) -> Tensor:
    """The objective of a batch of each kind: a scalar. share: of the poison, in [0, 1). Labels are the true ones."""
    clean = functional.cross_entropy(logits, labels)
    return (1 - share) * clean + share * reverse_cross_entropy(poison_logits, poison_labels).mean()
