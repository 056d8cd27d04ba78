"""The mean loss over a data set, as a function of some of a network's weights."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.func import functional_call

from jobs.common.mean_loss.losses import Loss, cross_entropy
from jobs.common.models.weights import Direction
from jobs.common.passes import Act, Result, passes
from service.errors import InputError


class MeanLoss:
    """The mean loss over a data set, around given weights.

    A vector holds the entries of the parameters `names`, one after the other. The mean is over images, whatever the
    batches.
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
        to differentiate by; default: those of more than one dimension. batch: images in a pass on a CPU. InputError if
        there is none of these.
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

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters to differentiate by, at these weights."""
        return {name: self._state[name] for name in self.names}

    @property
    def device(self) -> torch.device:
        """Where vectors and products are."""
        return self._state[self.names[0]].device

    @property
    def layers(self) -> dict[str, slice]:
        """Where the entries of each layer lie in a vector: of the parameters of one module, under its name."""
        places, first = {}, 0
        for layer, names in groupby(self.names, key=layer_of):
            last = first + sum(self._state[name].numel() for name in names)
            places[layer] = slice(first, last)
            first = last
        return places

    def mean_loss(self) -> float:
        """The mean loss over the data set at these weights."""
        return self._value([self._state[name] for name in self.names])

    def value_at(self, offset: Tensor) -> float:
        """The mean loss where the weights are moved by a vector (size,)."""
        return self._value(self._moved(offset))

    def value_and_gradient_at(self, offset: Tensor) -> tuple[float, Tensor]:
        """The same, and its gradient there: float64 (size,)."""
        moving = [weight.requires_grad_() for weight in self._moved(offset)]

        def differentiated(rows: slice) -> tuple[float, Tensor]:
            share = self._share(moving, rows)
            return float(share.detach()), flat(gradient_of(share, moving))

        value, total = 0.0, torch.zeros(self.size, dtype=torch.float64, device=self.device)
        for share, gradient in self._passes(differentiated, "gradients"):
            value += share
            total += gradient
        return value, total

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector (size,) as tensors of the shapes and types of the parameters."""
        weights = self.weights.values()
        parts: Sequence[Tensor] = torch.split(vector, [weight.numel() for weight in weights])
        return [part.view_as(weight).to(weight) for part, weight in zip(parts, weights, strict=True)]

    def direction(self, vector: Tensor) -> Direction:
        """The same by the parameters' names."""
        return dict(zip(self.names, self.split(vector), strict=True))

    def _moved(self, offset: Tensor) -> list[Tensor]:
        return [weight + part for weight, part in zip(self.weights.values(), self.split(offset), strict=True)]

    def _value(self, weights: Sequence[Tensor]) -> float:
        with torch.no_grad():
            return sum(self._passes(lambda rows: float(self._share(weights, rows)), "mean losses"))

    def _passes(self, act: Act[Result], purpose: str) -> Iterator[Result]:
        """What is made of each batch of images."""
        like = (self._images.shape[1:], *self.names)
        return passes(act, len(self._images), self._network, like, purpose=purpose, on_cpu=self._batch)

    def _share(self, moving: Sequence[Tensor], rows: slice) -> Tensor:
        """What some images add to the mean loss over the data set."""
        state = self._state | dict(zip(self.names, moving, strict=True))
        labels = self._labels[rows]
        losses = self._loss(functional_call(self._network, state, (self._images[rows],)), labels)
        if losses.shape != (len(labels),):
            raise InputError(f"a loss has one number for each of {len(labels)} images, not {tuple(losses.shape)}")
        return losses.sum() / len(self._images)


def layer_of(name: str) -> str:
    """The module that a parameter belongs to; the parameter itself if it is one of the network's own."""
    return name.rpartition(".")[0] or name


def gradient_of(
    value: Tensor, moving: Sequence[Tensor], *, create_graph: bool = False, retain_graph: bool = False
) -> Sequence[Tensor]:
    """The gradient of a number; zero by what it does not depend on: the slope of a linear loss is the same anywhere."""
    if not value.requires_grad:
        return [torch.zeros_like(each) for each in moving]
    return torch.autograd.grad(
        value,
        moving,
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def flat(parts: Sequence[Tensor]) -> Tensor:
    """Tensors as one vector, float64."""
    return torch.cat([part.detach().double().reshape(-1) for part in parts])
