"""Many networks of one architecture that are computed together: their weights lie in one stack."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from jobs.common.models.stacked import stacked
from jobs.common.models.weights import check_alike
from service.errors import InputError


class Ensemble(nn.Module):
    """Networks with weights of their own, as one module, whose parameters are the stacks of theirs.

    A sum of their losses has for each of them the gradient of its own loss, and an optimizer that treats every number
    by itself (all but those that look at norms of the whole gradient) moves each as it would alone.
    """

    def __init__(self, network: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> None:
        """network: the architecture, left as it is. states: the weights of each network, by their names.

        InputError if a network keeps statistics of its batches, or if the states are of different architectures.
        """
        super().__init__()
        own = dict(network.named_parameters())
        check_no_statistics(network)
        states = [{name: state[name] for name in own if name in state} for state in states]
        for number, state in enumerate(states):
            check_alike(own, state, f"network {number}")
        self.names = list(own)
        self.stacks = nn.ParameterList(
            [nn.Parameter(torch.stack([state[name].detach() for state in states])) for name in self.names]
        )
        self._network = [network]  # in a list, so that its weights are none of this module's

    def forward(self, images: Tensor) -> Tensor:
        """images: (batch, channels, height, width), the same for all. Returns logits (networks, batch, classes)."""
        weights = dict(zip(self.names, self.stacks, strict=True))
        return stacked(self._network[0].to(images.device).train(self.training))(weights, images)

    def states(self) -> list[dict[str, Tensor]]:
        """The weights of each network, by their names, on the CPU."""
        stacks = [stack.detach().cpu() for stack in self.stacks]
        return [
            {name: stack[number].clone() for name, stack in zip(self.names, stacks, strict=True)}
            for number in range(len(stacks[0]))
        ]


def check_no_statistics(network: nn.Module) -> None:
    """InputError if the network keeps statistics of its batches, which networks computed together cannot each have."""
    for name, module in network.named_modules():
        if getattr(module, "running_mean", None) is not None:
            raise InputError(f"networks that are computed together must be without batch norm; this one has {name!r}")
