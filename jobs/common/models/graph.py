"""A network as a graph of its layers, made shorter where that does not change what it computes.

    graph = trace(network)            none if its forward pass is more than layers and operations
    axes = fold(graph, axes)          batch norm becomes a part of the layer before it
    fuse(graph, images)               on a CPU: ReLU and the sum of a residual block become a part of the convolution

Folding is exact along a direction in the space of weights as well: with s = gamma / sqrt(variance + eps) the layer W, b
followed by batch norm is the layer s W, s (b - mean) + beta, which is linear in W and b. So directions are scaled by s,
and it is allowed where no direction moves batch norm itself. What is fused computes gradients too, of what it is given,
not of its weights.
"""

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from jobs.common.models.weights import Direction, places

LAYERS = (nn.Conv2d, nn.Linear)
FOLDED = (*LAYERS, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode
RELU = (functional.relu, torch.relu, "relu")
MANY_CHANNELS = 128  # from which to look for zeros among gradients takes little of the time of a convolution
FEW_PLACES = 0.25  # of the gradients of an output, below which those that are zero are left out
FEW_CHANNELS = 4
LINEAR = 1.0
"""the slope below zero of a leaky ReLU that changes nothing"""
DENSE = 1 << 18
"""entries of the matrix of a whole convolution, up to which one product with it is faster than many small ones"""
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


Geometry = tuple[list[int], list[int], list[int], int]


class FusedConvolution(nn.Module):
    """ReLU(convolution(x)), or ReLU(convolution(x) + other) written over `other`, as oneDNN computes it in one pass.

    shape: of the features, if the weights stay as they are: they are then laid out once for features of one shape, not
    in each pass. slope: of leaky ReLU below zero, of convolutions alone; 0: ReLU; LINEAR: none, and nothing is written
    over. sparse: gradients of the output may be zero at most places.
    """

    def __init__(
        self, convolution: nn.Conv2d, shape: torch.Size | None = None, slope: float = 0.0, sparse: bool = False
    ) -> None:
        super().__init__()
        self.slope, self.sparse, self._still = slope, sparse, shape is not None
        self.weight, self.bias = convolution.weight, convolution.bias
        assert not isinstance(convolution.padding, str)
        self.geometry: Geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        """padding, stride, dilation, groups"""
        self._laid_out: tuple[torch.Size, Tensor] | None = None
        self._matrix: Matrix | None = None
        if shape is not None:
            with torch.no_grad():
                outputs = convolution(torch.zeros(1, *shape[1:], dtype=self.weight.dtype)).numel()
            small = not slope and shape[1:].numel() * outputs <= DENSE
            self._matrix = Matrix(convolution, shape[1:]) if small else None

    def forward(self, features: Tensor, other: Tensor | None = None) -> Tensor:
        inputs = (features,) if other is None else (features, other)
        if torch.is_grad_enabled() and any(each.requires_grad for each in inputs):
            if self._matrix is not None and features.shape[1:] == self._matrix.inputs:
                return self._matrix(features, other)
            rectified: Tensor = _Rectified.apply(features, other, self)
            return rectified
        return self.rectified(features, other)

    def rectified(self, features: Tensor, other: Tensor | None) -> Tensor:
        """What `forward` says, without gradients."""
        fused, weight = torch.ops.mkldnn, self._weight_for(features.shape)
        if self.slope == LINEAR:
            linear: Tensor = (
                fused._convolution_pointwise(features, weight, self.bias, *self.geometry, "none", [], "")
                if other is None
                else fused._convolution_pointwise.binary(
                    features, other, weight, self.bias, *self.geometry, "add", 1.0, None, [], ""
                )
            )
            return linear
        if other is None:
            activation = ("leaky_relu", [self.slope], "") if self.slope else ("relu", [], "")
            alone: Tensor = fused._convolution_pointwise(features, weight, self.bias, *self.geometry, *activation)
            return alone
        assert not self.slope
        both: Tensor = fused._convolution_pointwise_.binary(
            other, features, weight, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )
        return both

    def _weight_for(self, shape: torch.Size) -> Tensor:
        """Laid out for features of a shape: with the layout of another shape a pass can take four times as long."""
        if not self._still:
            return self.weight
        laid_out = self._laid_out  # once: another thread may replace it
        if laid_out is None or laid_out[0] != shape:
            weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight.detach(), *self.geometry, shape)
            laid_out = self._laid_out = (shape, weight)
        return laid_out[1]


class Matrix:
    """A whole convolution and its ReLU as one product, whose way back is a product as well. For few features."""

    def __init__(self, convolution: nn.Conv2d, inputs: torch.Size) -> None:
        """inputs: (channels, height, width)."""
        self.inputs = inputs
        one = convolution
        with torch.no_grad():
            units = torch.eye(inputs.numel(), dtype=one.weight.dtype).view(-1, *inputs)
            columns = functional.conv2d(units, one.weight, None, one.stride, one.padding, one.dilation, one.groups)
            self.outputs = columns.shape[1:]
            self.weight = columns.flatten(1).T.contiguous()
            """(outputs, inputs)"""
            self.bias = None if one.bias is None else one.bias.view(-1, 1, 1).expand(self.outputs).flatten()

    def __call__(self, features: Tensor, other: Tensor | None) -> Tensor:
        sums = functional.linear(features.flatten(1), self.weight, self.bias).view(-1, *self.outputs)
        return functional.relu_(sums if other is None else sums + other)


class _Rectified(torch.autograd.Function):
    """The same, where the gradient of its inputs will be asked for. It writes over nothing."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, other: Tensor | None, fused: FusedConvolution) -> Tensor:
        output = fused.rectified(features, None if other is None else other.clone())
        ctx.fused = fused
        ctx.save_for_backward(features, output)
        return output

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, output = ctx.saved_tensors
        padding, stride, dilation, groups = ctx.fused.geometry
        if output.is_contiguous(memory_format=torch.channels_last):  # not so the slopes that come out of a pooling
            slopes = slopes.contiguous(memory_format=torch.channels_last)
        if ctx.fused.slope:  # the sign of the output is that of the sum
            slopes = torch.ops.aten.leaky_relu_backward(slopes, output, ctx.fused.slope, True)
        else:
            slopes = torch.ops.aten.threshold_backward(slopes, output, 0)
        back: Tensor | None = None
        if groups == 1 and features.shape[1] <= FEW_CHANNELS:
            back = _of_few_channels(slopes, ctx.fused, features.shape)
        elif groups == 1 and features.shape[1] >= MANY_CHANNELS and ctx.fused.sparse:
            back = _of_few_places(slopes, ctx.fused, features.shape)
        if back is None:
            back, *_ = torch.ops.aten.convolution_backward(
                *(slopes, features, ctx.fused.weight, None, stride, padding, dilation, False, [0, 0], groups),
                [True, False, False],
            )
        return back, slopes if ctx.needs_input_grad[1] else None, None


def _of_few_channels(slopes: Tensor, fused: FusedConvolution, shape: torch.Size) -> Tensor:
    """The gradient of a convolution by its input: (batch, channels, height, width), of the shape.

    One product of matrices for all places of the kernel, each then added where it belongs. oneDNN, which computes many
    channels at a time, takes twice as long for the three of a colour image, and six times for one channel and a stride.
    """
    padding, stride, dilation, _ = fused.geometry
    if stride != [1, 1]:
        parts = fused.weight.flatten(1).T @ slopes.flatten(2)  # (batch, channels and kernel, places)
        size, kernel_size = tuple(shape[2:]), tuple(fused.weight.shape[2:])
        return functional.fold(parts, size, kernel_size, tuple(dilation), tuple(padding), tuple(stride))
    (batch, channels, height, width), (filters, _, *kernel) = shape, fused.weight.shape
    rows, columns = slopes.shape[2:]
    matrix = fused.weight.permute(2, 3, 1, 0).reshape(-1, filters)
    places = slopes.permute(0, 2, 3, 1).reshape(-1, filters)  # no copy where channels are last
    parts = (matrix @ places.T).view(*kernel, channels, batch, rows, columns)
    back = slopes.new_zeros(channels, batch, height + 2 * padding[0], width + 2 * padding[1])
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            top, left = row * dilation[0], column * dilation[1]
            back[..., top : top + stride[0] * rows : stride[0], left : left + stride[1] * columns : stride[1]] += parts[
                row, column
            ]
    inside = back[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    return inside.transpose(0, 1).contiguous()


def _of_few_places(slopes: Tensor, fused: FusedConvolution, shape: torch.Size) -> Tensor | None:
    """The gradient of a convolution by its input, (batch, channels, height, width), of the shape, from the places of
    its output where there is one; None: they are many, and all are as fast.
    """
    places = (slopes != 0).any(1).flatten().nonzero()[:, 0]
    if len(places) * slopes.shape[1] > FEW_PLACES * slopes.numel():
        return None
    padding, stride, dilation, _ = fused.geometry
    (batch, channels, height, width), (filters, _, *kernel) = shape, fused.weight.shape
    rows, columns = slopes.shape[2:]
    matrix = fused.weight.permute(0, 2, 3, 1).reshape(filters, -1)  # no copies where channels are last
    parts = slopes.permute(0, 2, 3, 1).reshape(-1, filters).index_select(0, places) @ matrix
    parts = parts.view(len(places), -1, channels)
    high, wide = height + 2 * padding[0], width + 2 * padding[1]
    image, row, column = places // (rows * columns), places // columns % rows, places % columns
    corners = (image * high + row * stride[0]) * wide + column * stride[1]
    back = slopes.new_zeros(batch, high, wide, channels)
    for number in range(parts.shape[1]):  # places of one part of the kernel meet no others of it
        down, across = divmod(number, kernel[1])
        reached = corners + down * dilation[0] * wide + across * dilation[1]
        back.view(-1, channels).index_add_(0, reached, parts[:, number])
    inside = back[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    return inside.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def can_fuse() -> bool:
    """Whether this torch has the fused convolutions."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def has_bfloat16() -> bool:
    """Whether the convolutions of this processor take bfloat16."""
    supported: bool = can_fuse() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


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
