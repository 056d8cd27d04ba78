"""The mean loss of a network at many settings of its weights at once.

A setting is a vector of all numbers of the network's state, so that networks of one architecture can be evaluated
together as well: each row of a stack may be another network, or another point around one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from jobs.common.mean_loss.losses import Loss
from jobs.common.models.stacked import Forward, one_by_one, stacked
from jobs.common.models.weights import tensors
from jobs.common.passes import passes
from service.errors import InputError

ROOM = 2 << 20  # bytes of activations and weights that are worked on together on a CPU: about what stays in a cache
BATCH_ROOM = 64 << 20  # bytes of activations of one network: larger sets of inputs are shown in batches


@dataclass(frozen=True)
class Layout:
    """How the tensors of a state follow one another in a vector: names and shapes, in order."""

    shapes: Mapping[str, torch.Size]

    @property
    def size(self) -> int:
        """Numbers in a state."""
        return sum(shape.numel() for shape in self.shapes.values())

    def flatten(self, state: Mapping[str, Tensor]) -> Tensor:
        """A state as a vector (size,)."""
        return torch.cat([state[name].detach().reshape(-1) for name in self.shapes])

    def embed(self, part: Mapping[str, Tensor]) -> Tensor:
        """A part of a state as a vector (size,) that is zero elsewhere."""
        zero = next(iter(part.values())).new_zeros(1)
        return self.flatten({name: part.get(name, zero.expand(shape)) for name, shape in self.shapes.items()})

    def unflatten(self, vectors: Tensor) -> dict[str, Tensor]:
        """Vectors (k, size) as tensors (k, *shape), without a copy."""
        parts = torch.split(vectors, [shape.numel() for shape in self.shapes.values()], dim=1)
        return {
            name: part.view(len(vectors), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


class StackedLoss:
    """The mean loss over fixed inputs as a function of the weights, evaluated in eval mode."""

    def __init__(self, network: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss) -> None:
        """network: on the device of the inputs. inputs: (count, ...). targets: (count, ...), what `loss` takes.

        InputError unless there are as many targets as inputs, at least one.
        """
        if not 0 < len(inputs) == len(targets):
            raise InputError(f"a mean loss needs as many targets as inputs: {len(targets)} and {len(inputs)}")
        self.network = network.eval()
        state = tensors(network)
        self.layout = Layout({name: tensor.shape for name, tensor in state.items()})
        self.centre = self.layout.flatten(state)
        """the weights of the network itself (size,)"""
        self._statistics = set(state) - set(
            tensors(network, "weights")
        )  # of batch norm: nothing differentiates by them
        self._inputs, self._targets, self._loss = inputs, targets, loss
        each = 4 * _widest(network, inputs[:1])  # bytes for one input
        self._batch = max(1, min(len(inputs), BATCH_ROOM // each))
        self.together = max(1, ROOM // (each * self._batch + 4 * self.layout.size))
        """settings that are evaluated together on a CPU"""
        self._forward = self._fastest()

    def __len__(self) -> int:
        return len(self._inputs)

    def __call__(self, points: Tensor) -> Tensor:
        """points: (k, size). Returns float64 (k,), NaN or infinite where the loss is."""
        return self._losses(lambda rows: points[rows], len(points))

    def gradients(self, points: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Losses float64 (k,) and their gradients by the parameters (k, size), zero elsewhere, at points (k, size).

        chosen: int64 (count,), the inputs that the mean is over; none: all.
        """

        def differentiated(rows: slice) -> tuple[Tensor, Tensor]:
            moving = points[rows].detach().requires_grad_()
            means = self._means(moving, chosen)
            (gradient,) = torch.autograd.grad(means.sum(), moving)  # a row's loss depends on that row alone
            return means.detach(), gradient

        like = (self._inputs.shape, None if chosen is None else len(chosen))
        purpose, network = "gradients of many settings", self.network
        parts = passes(differentiated, len(points), network, like, purpose=purpose, on_cpu=self.together)
        losses, gradients = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(gradients)

    def along(self, starts: Tensor, directions: Tensor, rays: Tensor, distances: Tensor) -> Tensor:
        """The loss at `distances` (k,) along the rays of these numbers, int64 (k,): float64 (k,).

        starts: (1, size) or (count of rays, size). directions: (count of rays, size).
        """

        def points(rows: slice) -> Tensor:
            some, steps = rays[rows], distances[rows].to(directions.dtype)[:, None]
            return torch.addcmul(starts if len(starts) == 1 else starts[some], steps, directions[some])

        return self._losses(points, len(rays))

    def _losses(self, points: Callable[[slice], Tensor], count: int) -> Tensor:
        """The losses (count,) at points that are made when they are needed."""

        @torch.no_grad()
        def losses(rows: slice) -> Tensor:
            return self._means(points(rows), None)

        purpose, network, like = "losses of many settings", self.network, self._inputs.shape
        return torch.cat(list(passes(losses, count, network, like, purpose=purpose, on_cpu=self.together)))

    def _means(self, points: Tensor, chosen: Tensor | None) -> Tensor:
        """Mean losses (k,) of points that fit together."""
        inputs = self._inputs if chosen is None else self._inputs[chosen]
        targets = self._targets if chosen is None else self._targets[chosen]
        states = self.layout.unflatten(points)
        states |= {name: states[name].detach() for name in self._statistics}
        total = torch.zeros(len(points), dtype=torch.float64, device=points.device)
        batches = (torch.split(each, self._batch) for each in (inputs, targets))
        for some, goals in zip(*batches, strict=True):
            logits = self._forward(states, some)  # (k, batch, classes)
            repeated = goals.expand(len(points), *goals.shape).flatten(0, 1)
            losses = self._loss(logits.flatten(0, 1), repeated)
            if losses.shape != (len(repeated),):
                raise InputError(f"a loss has one number for each of {len(repeated)} inputs, not {tuple(losses.shape)}")
            total = total + losses.view(len(points), -1).double().sum(1)
        return total / len(inputs)

    def _fastest(self) -> Forward:
        """All settings at once, if torch can stack what the network does."""
        forward = stacked(self.network)
        try:
            with torch.no_grad():
                forward(self.layout.unflatten(self.centre.expand(2, -1)), self._inputs[:1])
        except RuntimeError:  # control flow that depends on numbers, or an operation without a rule for stacks
            return one_by_one(self.network)
        return forward


class _Widest(TorchFunctionMode):
    """Inside of it, `numbers` is the most that one call to torch returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: int = 1

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def _widest(network: nn.Module, one: Tensor) -> int:
    """The numbers of the largest tensor on the way of one input through the network."""
    with torch.no_grad(), _Widest() as widest:
        network(one)
    numbers: int = max(widest.numbers, one.numel())
    return numbers
