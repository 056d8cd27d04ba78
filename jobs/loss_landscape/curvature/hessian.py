"""The Hessian of the mean loss by the weights, as its products with vectors.

Only products with vectors are ever computed, each by differentiating twice.

Source: Li et al. 2018, section 6 and figure 7 ("Are we really seeing convexity?").
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from jobs.common.mean_loss.losses import Loss, cross_entropy
from jobs.common.models.weights import Direction
from service.errors import InputError


class Hessian:
    """The Hessian of the mean loss over a data set, at given weights, as a product with vectors.

    A vector holds the entries of the parameters `names`, one after the other. The mean is over images, whatever the
    batches: the released code sums the means of batches, so that its eigenvalues grow with the number of batches.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        weights: Mapping[str, Tensor] | None = None,
        names: Collection[str] | None = None,
        loss: Loss = cross_entropy,
        batch: int = 512,
    ) -> None:
        """network: evaluated in eval mode. images: (count, ...), labels: (count,), on its device.

        weights: parameters and buffers that replace the network's own, which are left alone. names: of the parameters
        to differentiate by; default: those of more than one dimension. InputError if there is none of these.
        """
        parameters = dict(network.named_parameters())  # tied ones once
        self.names = [name for name, each in parameters.items() if (each.dim() > 1 if names is None else name in names)]
        if not self.names or (names is not None and len(self.names) < len(set(names))):
            raise InputError(f"the network has no parameters {sorted(set(names or []) - set(self.names))} to move")
        if not 0 < len(images) == len(labels):
            raise InputError(f"a Hessian needs as many labels as images: {len(labels)} and {len(images)}")
        self._network = network.eval()
        own = {**parameters, **dict(network.named_buffers())}
        self._state = {name: (weights or {}).get(name, tensor).detach() for name, tensor in own.items()}
        self._images, self._labels, self._loss, self._batch = images, labels, loss, batch
        self.size = sum(self._state[name].numel() for name in self.names)

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The product with a vector. Both float64 (size,); computed in the type of the weights."""
        moving = [self._state[name].clone().requires_grad_() for name in self.names]
        direction = list(self.unflatten(vector).values())
        total = [torch.zeros_like(each, dtype=torch.float64) for each in moving]
        for share in self._shares(moving):
            gradient = _gradient(share, moving, create_graph=True)
            slope = torch.stack([(each * along).sum() for each, along in zip(gradient, direction, strict=True)]).sum()
            for sum_so_far, product in zip(total, _gradient(slope, moving), strict=True):
                sum_so_far += product
        return torch.cat([each.reshape(-1) for each in total]).cpu().numpy()

    def mean_loss(self) -> float:
        """The mean loss over the data set at these weights."""
        with torch.no_grad():
            return sum(float(share) for share in self._shares([self._state[name] for name in self.names]))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters to differentiate by, at these weights."""
        return {name: self._state[name] for name in self.names}

    def unflatten(self, vector: np.ndarray) -> Direction:
        """A vector (size,) as a direction: one tensor for each of `names`, of its parameter's shape and type."""
        parts = np.split(vector, np.cumsum([weight.numel() for weight in self.weights.values()])[:-1])
        return {
            name: torch.from_numpy(part).view_as(weight).to(weight)
            for (name, weight), part in zip(self.weights.items(), parts, strict=True)
        }

    def _shares(self, moving: Sequence[Tensor]) -> Iterator[Tensor]:
        """What each batch adds to the mean loss over the data set."""
        state = self._state | dict(zip(self.names, moving, strict=True))
        for first in range(0, len(self._images), self._batch):
            labels = self._labels[first : first + self._batch]
            logits = functional_call(self._network, state, (self._images[first : first + self._batch],))
            losses = self._loss(logits, labels)
            if losses.shape != (len(labels),):
                raise InputError(f"a loss has one number for each of {len(labels)} images, not {tuple(losses.shape)}")
            yield losses.sum() / len(self._images)


def _gradient(value: Tensor, moving: Sequence[Tensor], create_graph: bool = False) -> Sequence[Tensor]:
    """The gradient of a number; zero by what it does not depend on: the slope of a linear loss is the same anywhere."""
    if not value.requires_grad:
        return [torch.zeros_like(each) for each in moving]
    return torch.autograd.grad(value, moving, create_graph=create_graph, allow_unused=True, materialize_grads=True)
