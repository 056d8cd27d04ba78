"""Networks and losses of known curvature, and Hessians that are written out."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional as F


class Quadratic(nn.Module):
    """Answers every image with its weights, so that a loss may be any function of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, size, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight.expand(len(images), -1) * images + self.bias


class Bent:
    """The loss sum_i (curvatures_i w_i^2 / 2 + w_i^3 / 6), whose Hessian is diagonal: curvatures + w."""

    def __init__(self, curvatures: np.ndarray) -> None:
        self.curvatures = torch.from_numpy(curvatures)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (self.curvatures * logits**2 / 2 + logits**3 / 6).sum(1)


def straight(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss that does not bend."""
    return logits.sum(1)


def small_network() -> tuple[nn.Module, Tensor, Tensor]:
    """A convolutional network with batch norm, in double precision, and data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 3, 3, stride=2, bias=False), nn.BatchNorm2d(3), nn.Tanh()),
            *(nn.Flatten(), nn.Linear(27, 3)),
        ).double()
        images = torch.randn(50, 1, 8, 8, dtype=torch.float64)
        network(images)  # running statistics
        return network, images, torch.randint(3, (50,))


def written_out(network: nn.Module, images: Tensor, labels: Tensor, names: list[str]) -> np.ndarray:
    """The whole Hessian of the mean cross entropy by some parameters."""
    own = {name: dict(network.named_parameters())[name].detach() for name in names}

    def mean_loss(flat: Tensor) -> Tensor:
        parts = flat.split([tensor.numel() for tensor in own.values()])
        moved = {name: part.view_as(own[name]) for name, part in zip(names, parts, strict=True)}
        return F.cross_entropy(functional_call(network.eval(), moved, (images,)), labels)

    matrix: Tensor = hessian(mean_loss, torch.cat([tensor.reshape(-1) for tensor in own.values()]))
    return matrix.numpy()
