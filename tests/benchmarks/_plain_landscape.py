"""A point of a loss surface as the released code of Li et al. 2018 computes it."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from jobs.common.models.directions import moved
from jobs.common.models.weights import Direction, tensors


def plain_way(network: nn.Module, axes: list[Direction], images: Tensor, labels: Tensor) -> None:
    """One point, as the released code computes it: new weights, then batches of 128 out of a loader."""
    weights = moved(tensors(network, "weights"), axes, (0.1, 0.2))
    for name, parameter in network.named_parameters():
        parameter.data = weights[name]
    with torch.no_grad():
        for batch, wanted in DataLoader(TensorDataset(images, labels), batch_size=128):
            logits = network(batch)
            functional.cross_entropy(logits, wanted).item()
            logits.argmax(1).eq(wanted).sum().item()
