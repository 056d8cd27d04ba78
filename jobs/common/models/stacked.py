"""Networks of one architecture that see the same inputs together: their weights lie in stacks.

A chain of linear layers with functions of single numbers between them is a chain of batched products, which take about
half the time of what torch makes of any other network (torch.func.vmap). A network that decides by its numbers what to
do cannot be stacked: `one_by_one` is for those.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from jobs.common.models.classifiers import Classifier
from jobs.common.models.classifiers.fully_connected import AgainstZero
from jobs.common.models.classifiers.normalisation import PerChannel, PerImage
from jobs.common.models.weights import places

Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""tensors (networks, *shape) by their names in `state_dict`, inputs (batch, ...) -> outputs (networks, batch, ...)"""

BEFORE = (nn.Flatten, nn.Identity, PerChannel, PerImage)
"""modules that prepare inputs for a chain, the same for all networks"""
BETWEEN = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity, AgainstZero)
"""modules that do the same to (networks, batch, features) as to (batch, features) for each network"""


def stacked(network: nn.Module) -> Forward:
    """What networks like this one answer, all of them at once. Tensors that the stacks lack are its own.

    Where it draws random numbers, as for dropout, each network has its own. RuntimeError when called, if torch cannot
    stack what the network does.
    """
    if (chain := _chain(network)) is not None:
        return chain

    def together(stacks: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        answer = vmap(lambda state: functional_call(network, state, (inputs,)), randomness="different")
        outputs: Tensor = answer(dict(stacks))
        return outputs

    return together


def one_by_one(network: nn.Module) -> Forward:
    """The same of any network, one after another."""

    def in_turn(stacks: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        count = len(next(iter(stacks.values())))
        states = ({name: stack[number] for name, stack in stacks.items()} for number in range(count))
        return torch.stack([functional_call(network, state, (inputs,)) for state in states])

    return in_turn


def _chain(network: nn.Module) -> Forward | None:
    """The network as batched products; None if it is no chain of linear layers."""
    layers = list(_layers(network))
    first = next((index for index, layer in enumerate(layers) if isinstance(layer, nn.Linear)), None)
    if first is None or not all(type(layer) in BEFORE for layer in layers[:first]):
        return None
    if not all(type(layer) in (nn.Linear, *BETWEEN) for layer in layers[first:]):
        return None
    names = {(id(module), name): tied for tied, held in places(network).items() for module, name in held}

    def forward(stacks: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        count = len(next(iter(stacks.values())))

        def stack(layer: nn.Linear, name: str) -> Tensor:
            own: Tensor = getattr(layer, name)
            return stacks.get(names[id(layer), name], own.expand(count, *own.shape))

        values = inputs
        for layer in layers[:first]:
            values = layer(values)  # (batch, features)
        values = values.expand(count, *values.shape)
        for layer in layers[first:]:
            if not isinstance(layer, nn.Linear):
                values = layer(values)
                continue
            weight = stack(layer, "weight").transpose(1, 2)  # (networks, in, out)
            if layer.bias is None:
                values = torch.bmm(values, weight)
            else:
                values = torch.baddbmm(stack(layer, "bias")[:, None], values, weight)
        return values  # (networks, batch, out)

    return forward


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a chain in the order in which they are applied."""
    if type(network) in (nn.Sequential, Classifier):
        for child in network.children():
            yield from _layers(child)
    else:
        yield network
