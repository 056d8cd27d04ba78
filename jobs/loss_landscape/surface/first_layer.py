"""The first layer of a network that moves along a plane: linear in the weights, so three tensors say all of it.

At theta + a d + b e it makes z0 + a z1 + b z2 of a batch, where z0, z1 and z2 are what it makes with the weights theta,
d and e. For a network of fully connected layers this saves most of the work at each point.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from jobs.common.models.graph import LAYERS, macs, module_of
from jobs.common.models.weights import Direction, places

LEAST_SHARE = 0.1  # of all multiply-adds, below which it does not pay
LEAST_INPUTS = 64  # that an output is made of, below which the sum costs as much as the layer
MOST_BYTES = 512 << 20  # of what is kept


class FirstLayer(nn.Module):
    """Stands for the layer. `parts` of the batch and the `point` are set before each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Tensor] = []
        self.point: Sequence[float] = ()

    def forward(self, features: Tensor) -> Tensor:
        outputs = self.parts[0]
        for coordinate, part in zip(self.point, self.parts[1:], strict=True):
            outputs = torch.add(outputs, part, alpha=coordinate)
        return outputs.to(features.dtype)


def cacheable_layer(graph: fx.GraphModule, some: Tensor, images: int, axes: int) -> fx.Node | None:
    """The layer before which nothing has weights, if it is worth keeping what it makes, and fits into memory.

    some: a few images. images, axes: how many there are in all. None if there is none.
    """
    reached: set[fx.Node] = set()
    for node in graph.graph.nodes:
        module = module_of(graph, node)
        if node.op == "placeholder":
            reached.add(node)
        elif not node.all_input_nodes or not reached.issuperset(node.all_input_nodes):
            continue
        elif isinstance(module, LAYERS):
            work = macs(graph, some)
            held = places(graph)
            names = [f"{node.target}.{name}" for name, _ in module.named_parameters()]
            once = sum(each.target == node.target for each in graph.graph.nodes) == 1
            once = once and all(len(held.get(name, ())) == 1 for name in names)  # its weights are nobody else's
            numbers = node.meta["tensor_meta"].shape.numel() // len(some) * images * (1 + axes)
            wide = module.weight[0].numel() >= LEAST_INPUTS
            pays = wide and work[str(node.target)] >= LEAST_SHARE * sum(work.values())
            return node if once and pays and 4 * numbers <= MOST_BYTES else None
        elif node.op in ("call_function", "call_method") or (module and not any(True for _ in module.parameters())):
            reached.add(node)
    return None


class CachedLayer:
    """What the layer makes of every batch."""

    def __init__(self, graph: fx.GraphModule, node: fx.Node, axes: Sequence[Direction]) -> None:
        """Take the layer out of the graph, in place."""
        self._name = str(node.target)
        self._layer = graph.get_submodule(self._name)
        at_start = {key: tensor.detach() for key, tensor in self._layer.named_parameters()}
        self._weights = [at_start]
        for axis in axes:
            self._weights.append(
                {key: axis.get(f"{self._name}.{key}", torch.zeros_like(weight)) for key, weight in at_start.items()}
            )
        self._before = _up_to(graph, node)
        self._parts: dict[int, list[Tensor]] = {}
        graph.set_submodule(self._name, FirstLayer())

    def show(self, network: nn.Module, images: Tensor, first: int, point: Sequence[float]) -> None:
        """Make a network ready for a batch, of which `first` is the place in the whole, at a point."""
        if first in self._parts and len(self._parts[first][0]) != len(images):
            self.forget()
        if first not in self._parts:
            inputs = self._before(images)
            self._parts[first] = [functional_call(self._layer, each, (inputs,)) for each in self._weights]
        stand_in = network.get_submodule(self._name)
        assert isinstance(stand_in, FirstLayer)
        stand_in.parts, stand_in.point = self._parts[first], point

    def to(self, device: torch.device) -> None:
        """Move what the layer is made of to where the images are."""
        self._weights = [{key: each.to(device) for key, each in part.items()} for part in self._weights]
        self._before = self._before.to(device)
        self._layer = self._layer.to(device)

    def forget(self) -> None:
        """What it makes of batches so far: they are going to be others."""
        self._parts = {}


def _up_to(graph: fx.GraphModule, node: fx.Node) -> fx.GraphModule:
    """The part of a graph that computes the input of a layer."""
    last: Any = node.args[0]
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for each in graph.graph.nodes:
        copies[each] = part.node_copy(each, lambda old: copies[old])
        if each is last:
            break
    part.output(copies[last])
    return fx.GraphModule(graph, part)
