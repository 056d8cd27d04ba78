"""Features: what a network makes of images just before its last linear layer, or at layers that are named.

They are caught while the network runs, as the input of a layer, so that what its `forward` does between two layers (a
ReLU that is no layer, pooling, flattening) is part of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from jobs.common.attacks.prepared import FEW, prepared
from jobs.common.models import graph
from jobs.common.passes import passes
from service.errors import InputError

BATCH = 256  # images at once on a CPU


class Features:
    """A network cut at a layer: called with images, it answers with their features."""

    def __init__(self, network: nn.Module, like: Tensor, layers: Sequence[str] = ()) -> None:
        """network: in evaluation mode from here on. like: an image, (1, channels, height, width).

        layers: whose output is a feature, by their names in the network; none: the input of the last linear layer.
        InputError if a layer is not there or is called other than once, or if the network has several outputs.
        """
        self.network = network.eval().requires_grad_(False)
        self.head = "" if layers else last_linear(network, like)
        modules = dict(network.named_modules())
        if missing := [name for name in layers if name not in modules]:
            named = [name for name in modules if name]
            raise InputError(f"layers: the network has no {missing[0]!r}", hint=f"it has {', '.join(named[:40])}")
        self.names = tuple(layers)
        self._layers, self._shape = [modules[name] for name in layers], like.shape[1:]
        with torch.no_grad():
            self.sizes = [each.shape[1] for each in self.blocks(like)]
        self.size = sum(self.sizes)
        """D, numbers in a feature"""

    def __call__(self, images: Tensor) -> Tensor:
        """images: (n, channels, height, width). Returns (n, D): of several layers, one after another."""
        blocks = self.blocks(images)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def blocks(self, images: Tensor) -> list[Tensor]:
        """The features of each layer by itself: (n, D_i) each, for losses that are normalised layer by layer."""
        return self.forward(images)[1]

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (n, classes), and the features of each layer."""
        with _caught(self._layers or [self.last], outputs=bool(self._layers)) as caught:
            logits: Tensor = self.network(images)
        return logits, [_once(each).flatten(1) for each in caught]

    def prepared(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """The same within float rounding, and faster: layers folded and fused, and none after the last feature.

        For thousands of passes forward and back. images: (n, channels, height, width), of those to come; a few are
        tried. The features as they are, if the network is more than layers and operations.
        """
        cut, few = self._cut(), images[:FEW]
        with torch.no_grad():  # a layer that writes over a feature is missing where nothing else needs it
            same = cut is not None and torch.equal(cut(few), self(few))
        return prepared(cut, few) if cut is not None and same else self

    def _cut(self) -> fx.GraphModule | None:
        """The network as far as the features, which are its outputs (n, D); None if it cannot be traced.

        Nor can it be cut at a layer that is made of layers.
        """
        traced = graph.trace(self.network)
        if traced is None:
            return None
        called = {str(node.target): node for node in traced.graph.nodes if node.op == "call_module"}
        names = list(self.names) or [self.head]
        if not all(name in called for name in names):
            return None
        nodes = [called[name] if self.names else called[name].args[0] for name in names]
        output = traced.graph.output_node()
        with traced.graph.inserting_before(output):
            flat = [traced.graph.call_function(torch.flatten, (node, 1)) for node in nodes]
            whole = flat[0] if len(flat) == 1 else traced.graph.call_function(torch.cat, (flat, 1))
        output.args = (whole,)
        traced.graph.eliminate_dead_code()
        traced.delete_all_unused_submodules()
        traced.recompile()
        return traced

    @property
    def last(self) -> nn.Linear:
        """The last linear layer, whose input the features are. Only if no layers were named."""
        layer = self.network.get_submodule(self.head)
        assert isinstance(layer, nn.Linear)
        return layer

    def of(self, images: Callable[[Tensor], Tensor], indices: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, D) and logits (n, classes) of many images, a batch at a time, on the CPU.

        images: from int64 (k,) indices to float32 (k, channels, height, width). InputError if they are dead.
        """
        device = next(iter(self.network.parameters())).device

        @torch.no_grad()
        def forward(rows: slice) -> tuple[Tensor, Tensor]:
            logits, blocks = self.forward(images(indices[rows]).to(device))
            return torch.cat(blocks, 1).cpu(), logits.cpu()

        like = (self._shape, *self.sizes)
        parts = passes(forward, len(indices), self.network, like, purpose="features", on_cpu=BATCH)
        features, logits = map(torch.cat, zip(*parts, strict=True))
        check_alive(features)
        return features, logits


def check_alive(features: Tensor) -> None:
    """InputError if all features (n, D) are zero, or if one is not finite: no distance says anything then."""
    if not bool(torch.isfinite(features).all()):
        raise InputError("the network's features are not finite")
    if not bool(features.any()):
        raise InputError("the network's features are zero for every image: its layer is dead")


def last_linear(network: nn.Module, like: Tensor) -> str:
    """The name of the linear layer that is called last. InputError if it is not the one that gives the output."""
    called: list[tuple[str, Any]] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: called.append((name, output)))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.no_grad():
            output = network(like)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Tensor):
        raise InputError(f"the network answers with a {type(output).__name__}: one tensor of logits is wanted")
    if not called or called[-1][1] is not output and not torch.equal(called[-1][1].flatten(), output.flatten()):
        raise InputError("the network does not end in a linear layer", hint="name the layers whose output is a feature")
    return called[-1][0]


@contextmanager
def _caught(layers: Sequence[nn.Module], outputs: bool) -> Iterator[list[list[Tensor]]]:
    """What goes into each layer, or comes out of it, while the network runs inside."""
    caught: list[list[Tensor]] = [[] for _ in layers]

    def catch(place: int) -> Callable[..., None]:
        return lambda _, inputs, *output: caught[place].append(output[0] if outputs else inputs[0])

    hooks = [
        layer.register_forward_hook(catch(place)) if outputs else layer.register_forward_pre_hook(catch(place))
        for place, layer in enumerate(layers)
    ]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def _once(caught: list[Tensor]) -> Tensor:
    if len(caught) != 1:
        raise InputError(f"a feature layer is called {len(caught)} times in one pass, once is allowed")
    if not isinstance(caught[0], Tensor):
        raise InputError(f"a feature layer answers with a {type(caught[0]).__name__}, one tensor is wanted")
    return caught[0]
