"""A network as a graph of its layers, made shorter where that does not change what it computes.

    graph = trace(network)            none if its forward pass is more than layers and operations
    axes = fold(graph, axes)          batch norm becomes a part of the layer before it
    fuse(graph, images)               on a CPU: ReLU and the sum of a residual block become a part of the convolution

Folding is exact along a direction in the space of weights as well: with s = gamma / sqrt(variance + eps) the layer W, b
followed by batch norm is the layer s W, s (b - mean) + beta, which is linear in W and b. So directions are scaled by s,
and it is allowed where no direction moves batch norm itself.
"""

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from jobs.common.models.fused_convolution import FusedConvolution
from jobs.common.models.weights import Direction, places

LAYERS = (nn.Conv2d, nn.Linear)
FOLDED = (*LAYERS, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode
RELU = (functional.relu, torch.relu, "relu")
SUM = (operator.add, operator.iadd, torch.add, "add")


_one_at_a_time = threading.Lock()


class _Layers(fx.Tracer):
    """Convolutions of the user's own are layers as well.

    While a trace is made, every call of a module comes here, whatever the thread. What others compute stays theirs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        own = threading.get_ident() == self._thread
        return super().call_module(m, forward, args, kwargs) if own else forward(*args, **kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        own = threading.get_ident() == self._thread
        return super().getattr(attr, attr_val, parameter_proxy_cache) if own else attr_val

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LAYERS) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule | None:
    """The graph of a network in evaluation mode, made of the same tensors; None if it cannot be traced."""
    try:
        with _one_at_a_time:
            traced = _Layers().trace(network)
        graph = fx.GraphModule(network, traced)
    except Exception:  # whatever a forward pass does when it meets a symbol: branch on it, count with it, print it
        return None
    for node in list(graph.graph.nodes):
        if isinstance(module_of(graph, node), NOTHING):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def module_of(graph: fx.GraphModule, node: Any) -> nn.Module | None:
    """The module that a node calls, None if it calls something else."""
    called = isinstance(node, fx.Node) and node.op == "call_module"
    return graph.get_submodule(str(node.target)) if called else None


def fold(graph: fx.GraphModule, axes: Sequence[Direction] = ()) -> list[Direction]:
    """Fold every batch norm that no axis moves, in place. Returns the axes for the tensors that there are then."""
    held = places(graph)
    moved = {name for axis in axes for name, tensor in axis.items() if bool(tensor.any())}
    axes = [dict(axis) for axis in axes]
    for node in list(graph.graph.nodes):
        norm = module_of(graph, node)
        if not isinstance(norm, NORMS) or norm.running_mean is None:
            continue
        before = node.args[0]
        layer = module_of(graph, before)
        if not isinstance(layer, FOLDED) or len(before.users) > 1 or calls(graph, before) + calls(graph, node) > 2:
            continue
        if isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1:
            continue
        still = all(name in held and name not in moved for name in _names(node, norm))
        tied = any(len(held.get(name, ())) != 1 for name in _names(before, layer))
        if still and not tied:
            fold_into(layer, norm, str(before.target), axes)
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    left = places(graph)
    return [{name: tensor for name, tensor in axis.items() if name in left} for axis in axes]


def fold_into(
    layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, norm: Any, name: str = "", axes: Sequence[Direction] = ()
) -> None:
    """Make a batch norm a part of the layer before it, and of what the axes say of that, in double precision."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()  # (channels,)
    shift = torch.zeros_like(scale)
    if norm.affine:
        scale, shift = scale * norm.weight.detach().double(), norm.bias.detach().double()
    bias = -norm.running_mean.double() if layer.bias is None else layer.bias.detach().double() - norm.running_mean
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0  # the dimension of its weights
    rows = scale.view(*[1] * outputs, -1, *[1] * (layer.weight.ndim - 1 - outputs))
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.detach().double() * rows).to(dtype), requires_grad=False)
    layer.bias = nn.Parameter((bias * scale + shift).to(dtype), requires_grad=False)
    for axis in axes:
        for key, factor in ((f"{name}.weight", rows), (f"{name}.bias", scale)):
            if key in axis:
                axis[key] = (axis[key].double() * factor).float()


def fuse(graph: fx.GraphModule, images: Tensor, leave: fx.Node | None = None, still: bool = False) -> None:
    """Fuse convolutions but one with what follows them, in place, float32 or bfloat16.

    images: a few, (batch, channels, height, width). still: the weights will not change any more.
    """
    ShapeProp(graph).propagate(images)
    order = {node: index for index, node in enumerate(graph.graph.nodes)}
    fused: set[fx.Node] = set()
    for node in list(graph.graph.nodes):
        if not does(graph, node, RELU, nn.ReLU):
            continue
        before, other = node.args[0], None
        if does(graph, before, SUM) and len(before.users) == 1 and len(before.args) == 2 and not before.kwargs:
            one, two = before.args
            if _may_be_fused(graph, one) and _may_be_overwritten(graph, two, before, fused, order):
                before, other = one, two
            elif _may_be_fused(graph, two) and _may_be_overwritten(graph, one, before, fused, order):
                before, other = two, one
        if before is leave or not _may_be_fused(graph, before):
            continue
        convolution = module_of(graph, before)
        assert isinstance(convolution, nn.Conv2d)
        shape = before.args[0].meta["tensor_meta"].shape if still else None
        graph.set_submodule(str(before.target), FusedConvolution(convolution, shape))
        arguments = (before.args[0],) if other is None else (before.args[0], other)
        with graph.graph.inserting_before(node):
            new = graph.graph.call_module(str(before.target), arguments)
        new.meta = node.meta
        order[new] = order[node]
        fused.add(new)
        node.replace_all_uses_with(new)
    for node in reversed(graph.graph.nodes):
        if not node.users and not node.is_impure():
            graph.graph.erase_node(node)
    graph.recompile()


def _may_be_fused(graph: fx.GraphModule, node: Any) -> bool:
    return is_plain(graph, node) and len(node.users) == 1


def is_plain(graph: fx.GraphModule, node: Any) -> bool:
    """Whether it is a convolution as oneDNN has it, which is called once."""
    layer = module_of(graph, node)
    plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and calls(graph, node) == 1


def _may_be_overwritten(
    graph: fx.GraphModule, node: Any, total: fx.Node, fused: set[fx.Node], order: dict[fx.Node, int]
) -> bool:
    """Whether a summand is of the shape of the sum, has memory of its own, and is not needed afterwards."""
    if not isinstance(node, fx.Node) or not (node in fused or isinstance(module_of(graph, node), nn.Conv2d)):
        return False
    readers = [user for user in node.users if user is not total]
    # a layer makes something new of it; of anything else a part might be looked at later
    read = all(isinstance(module_of(graph, user), (*LAYERS, FusedConvolution)) for user in readers)
    same = node.meta["tensor_meta"].shape == total.meta["tensor_meta"].shape
    return read and same and all(order[user] < order[total] for user in readers)


def macs(graph: fx.GraphModule, images: Tensor) -> dict[str, int]:
    """Multiply-adds for an image of each convolution and linear layer, by name. images: a few."""
    ShapeProp(graph).propagate(images)
    counts = {}
    for node in graph.graph.nodes:
        layer = module_of(graph, node)
        if isinstance(layer, LAYERS):
            outputs = node.meta["tensor_meta"].shape.numel() // len(images)
            counts[str(node.target)] = outputs * layer.weight[0].numel()
    return counts


def does(graph: fx.GraphModule, node: Any, functions: Sequence[Any], kind: type[nn.Module] | None = None) -> bool:
    """Whether a node calls one of the functions, or a module of a kind."""
    if not isinstance(node, fx.Node):
        return False
    if kind is not None and isinstance(module_of(graph, node), kind):
        return True
    return node.op in ("call_function", "call_method") and node.target in functions


def calls(graph: fx.GraphModule, node: fx.Node) -> int:
    """How often the module of a node is called."""
    return sum(each.op == "call_module" and each.target == node.target for each in graph.graph.nodes)


def _names(node: fx.Node, module: nn.Module) -> list[str]:
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [f"{node.target}.{name}" for name, tensor in own if tensor.is_floating_point()]
