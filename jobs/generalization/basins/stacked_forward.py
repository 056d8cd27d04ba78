"""One pass of inputs through a network at many settings of its weights at once.

A chain of linear layers with functions of single numbers between them is a chain of batched products, which take about
half the time of what torch makes of any other network (torch.func.vmap). A network that decides by its numbers what to
do cannot be stacked: its settings are passed through one after another.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from jobs.common.models.classifiers import Classifier
from jobs.common.models.classifiers.fully_connected import AgainstZero
from jobs.common.models.weights import places

Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""tensors (k, *shape) by the names of the state, inputs (batch, ...) -> outputs (k, batch, ...)"""

BETWEEN = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity, AgainstZero)
"""modules that do the same to (k, batch, features) as to (batch, features) at each of k settings"""


def stacked_forward(network: nn.Module, state: Mapping[str, Tensor], one: Tensor) -> Forward:
    """The fastest way for a network in evaluation mode. state: its own. one: an input, to try it with."""
    if (chain := _chain(network)) is not None:
        return chain

    def alone(setting: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(network, setting, (inputs,), tie_weights=True)
        return outputs

    def together(states: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = vmap(alone, in_dims=(0, None))(dict(states), inputs)
        return outputs

    def in_turn(states: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        rows = range(len(next(iter(states.values()))))
        return torch.stack([alone({name: each[row] for name, each in states.items()}, inputs) for row in rows])

    try:
        with torch.no_grad():
            together({name: tensor.expand(2, *tensor.shape) for name, tensor in state.items()}, one)
    except RuntimeError:  # control flow that depends on numbers, or an operation without a rule for stacks
        return in_turn
    return together


def _chain(network: nn.Module) -> Forward | None:
    """The network as batched products; None if it is no chain of linear layers."""
    layers = list(_layers(network))
    first = next((index for index, layer in enumerate(layers) if isinstance(layer, nn.Linear)), None)
    if first is None or any(_has_state(layer) for layer in layers[:first]):
        return None
    if not all(type(layer) in (nn.Linear, *BETWEEN) for layer in layers[first:]):
        return None
    names = {(id(module), name): first for first, held in places(network).items() for module, name in held}

    def forward(states: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        values = inputs
        for layer in layers[:first]:
            values = layer(values)  # (batch, features)
        values = values.expand(len(next(iter(states.values()))), *values.shape)
        for layer in layers[first:]:
            if isinstance(layer, nn.Linear):
                weight = states[names[id(layer), "weight"]].transpose(1, 2)  # (k, in, out)
                if layer.bias is None:
                    values = torch.bmm(values, weight)
                else:
                    values = torch.baddbmm(states[names[id(layer), "bias"]][:, None], values, weight)
            else:
                values = layer(values)
        return values  # (k, batch, out)

    return forward


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a chain in the order in which they are applied."""
    if type(network) in (nn.Sequential, Classifier):
        for child in network.children():
            yield from _layers(child)
    else:
        yield network


def _has_state(module: nn.Module) -> bool:
    return next(iter(module.state_dict()), None) is not None
