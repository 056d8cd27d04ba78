"""A network that answers again after one window of its images has changed, and computes only what changes with it.

    passes = windowed(graph, images, side=3)    # one pass; none where too little would be saved
    images[..., 3:6, 7:10] = others             # the same window of each image
    logits = passes.logits((3, 6), (7, 10), images)
    passes.accept(better)                       # of the other images, the window goes back to what it was
    passes.reject()                             # of all images

The features of every layer up to the first that mixes all positions (a mean, a linear layer) are kept, with the padding
that the next one needs. A window of pixels reaches a window of features, a little larger after each convolution. It is
computed anew from the features around it, by one product of matrices, and what comes after those layers in full.
Nothing is approximated and no error adds up: what is kept is what a whole pass gives, within float rounding.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from jobs.common.models.fused_convolution import LINEAR, FusedConvolution
from jobs.common.models.graph import module_of

Span = tuple[int, int]
"""the first row or column and the one after the last"""

POINTWISE_LAYERS = (nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus)
POINTWISE = (
    *(operator.add, operator.iadd, operator.sub, operator.mul, operator.truediv),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.relu, torch.tanh, torch.sigmoid),
    *(functional.relu, functional.leaky_relu, functional.elu, functional.silu, functional.gelu, functional.softplus),
)
POINTWISE_METHODS = ("add", "sub", "mul", "div", "relu", "tanh", "sigmoid")
WHOLE = 0.8
"""share of the positions from which on a layer is computed at all of them"""
SAVED_SHARE = 0.5
"""of all multiply-adds that must be saved, since a product of matrices takes longer for each than a convolution"""
SAVED = 5e5
"""multiply-adds that must be saved on an average layer: they take about as long as its calls to torch"""


class Map:
    """The features that a node gives, channels last, with zeros around them for the convolutions that read them."""

    def __init__(self, features: Tensor, pad: int) -> None:
        """features: (batch, channels, height, width)."""
        batch, self.channels, self.height, self.width = features.shape
        self.pad = pad
        self.padded = features.new_zeros(batch, self.height + 2 * pad, self.width + 2 * pad, self.channels)
        self.window((0, self.height), (0, self.width)).copy_(features)
        self.format = torch.contiguous_format if features.is_contiguous() else torch.channels_last

    def window(self, rows: Span, columns: Span) -> Tensor:
        """(batch, channels, rows, columns), a view; positions below 0 and beyond the end are padding."""
        batch, row, column, _ = self.padded.stride()
        return self.padded.as_strided(
            (len(self.padded), self.channels, rows[1] - rows[0], columns[1] - columns[0]),
            (batch, 1, row, column),
            (rows[0] + self.pad) * row + (columns[0] + self.pad) * column,
        )

    def whole(self) -> Tensor:
        """A copy of all features, laid out as the network has them."""
        return self.window((0, self.height), (0, self.width)).clone(memory_format=self.format)


@dataclass
class Layer(ABC):
    """A node whose features at a position hang on those around it. reads: the nodes that it reads."""

    reads: tuple[Any, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds for one position."""
        return 0

    def reach(self, span: Span, size: int, axis: int) -> Span:
        """What of its output along an axis (0: rows) hangs on a span of its input. size: of the output."""
        return span

    @abstractmethod
    def write(self, maps: dict[fx.Node, Map], rows: Span, columns: Span, window: Tensor) -> None:
        """Compute a window of the output into a tensor (batch, channels, rows, columns), which it does not read."""

    @abstractmethod
    def whole(self, maps: dict[fx.Node, Map]) -> Tensor:
        """All of the output."""


@dataclass
class Pointwise(Layer):
    function: Any
    arguments: tuple[Any, ...]
    """the nodes that it reads, and constants"""
    options: dict[str, Any]

    def write(self, maps: dict[fx.Node, Map], rows: Span, columns: Span, window: Tensor) -> None:
        window.copy_(self._apply({node: maps[node].window(rows, columns).clone() for node in self.reads}))

    def whole(self, maps: dict[fx.Node, Map]) -> Tensor:
        return self._apply({node: maps[node].whole() for node in self.reads})

    def _apply(self, features: dict[fx.Node, Tensor]) -> Tensor:
        given = (features[each] if isinstance(each, fx.Node) else each for each in self.arguments)
        output: Tensor = self.function(*given, **self.options)
        return output


@dataclass
class Pooling(Layer):
    module: Any

    def reach(self, span: Span, size: int, axis: int) -> Span:
        kernel, stride = _pair(self.module.kernel_size)[axis], _pair(self.module.stride)[axis]
        return _reached(span, size, kernel, stride, 0)

    def write(self, maps: dict[fx.Node, Map], rows: Span, columns: Span, window: Tensor) -> None:
        (kernel, kernel_across), (stride, stride_across) = _pair(self.module.kernel_size), _pair(self.module.stride)
        source = maps[self.reads[0]].window(
            (rows[0] * stride, (rows[1] - 1) * stride + kernel),
            (columns[0] * stride_across, (columns[1] - 1) * stride_across + kernel_across),
        )
        window.copy_(self.module(source))

    def whole(self, maps: dict[fx.Node, Map]) -> Tensor:
        output: Tensor = self.module(maps[self.reads[0]].whole())
        return output


@dataclass
class Convolution(Layer):
    """With what is fused with it: a sum with a second node that it reads, and ReLU."""

    module: nn.Conv2d | FusedConvolution

    def __post_init__(self) -> None:
        self.pads, self.strides, self.dilations = _geometry(self.module)
        weight, bias = self.module.weight.detach(), self.module.bias
        self.kernel = tuple(weight.shape[2:])
        self.matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).contiguous()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()

    @property
    def macs(self) -> int:
        return self.matrix.numel()

    def reach(self, span: Span, size: int, axis: int) -> Span:
        extent = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        return _reached(span, size, extent, self.strides[axis], self.pads[axis])

    def write(self, maps: dict[fx.Node, Map], rows: Span, columns: Span, window: Tensor) -> None:
        source = maps[self.reads[0]]
        batch, row, column, _ = source.padded.stride()
        top, left = (
            span[0] * stride - pad + source.pad
            for span, stride, pad in zip((rows, columns), self.strides, self.pads, strict=True)
        )
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        patches = source.padded.as_strided(
            (len(source.padded), height, width, *self.kernel, source.channels),
            (
                *(batch, row * self.strides[0], column * self.strides[1]),
                *(row * self.dilations[0], column * self.dilations[1], 1),
            ),
            top * row + left * column,
        )
        flat = torch.addmm(self.bias, patches.reshape(-1, len(self.matrix)), self.matrix)
        output = flat.view(-1, height, width, flat.shape[1]).permute(0, 3, 1, 2)
        if len(self.reads) > 1:
            output += maps[self.reads[1]].window(rows, columns)
        if isinstance(self.module, FusedConvolution) and self.module.slope != LINEAR:
            torch.clamp_min(output, 0, out=window)
        else:
            window.copy_(output)

    def whole(self, maps: dict[fx.Node, Map]) -> Tensor:
        output: Tensor = self.module(*(maps[node].whole() for node in self.reads))
        return output


class Windowed:
    """The passes. graph: of a network in evaluation mode that is not random, with images as its only input."""

    def __init__(self, graph: fx.GraphModule, images: Tensor) -> None:
        """images: (batch, channels, height, width)."""
        self._images, *others = (node for node in graph.graph.nodes if node.op == "placeholder")
        self._maps = {self._images: Map(images, _pad(graph, self._images))}
        self._layers: dict[fx.Node, Layer] = {}
        for node in graph.graph.nodes:
            layer = _layer(graph, node) if not others else None
            if layer is not None and layer.reads and all(each in self._maps for each in layer.reads):
                sources = [self._maps[each] for each in layer.reads]
                if len({(each.height, each.width) for each in sources}) == 1 or isinstance(layer, Convolution):
                    self._layers[node] = layer
                    self._maps[node] = Map(layer.whole(self._maps), _pad(graph, node))
        self._rest, self._read = _rest(graph, list(self._maps))
        self._undo: list[tuple[Tensor, Tensor]] = []
        self._spans = cache(self._spans_of)

    def saves(self, side: int) -> bool:
        """Whether a square window in the middle saves more time than the passes add."""
        image = self._maps[self._images]
        along, across = (
            self._spans(axis, (size - side) // 2, (size + side) // 2)
            for axis, size in enumerate((image.height, image.width))
        )
        total = saved = 0
        for node, layer in self._layers.items():
            output = self._maps[node]
            positions, area = output.height * output.width, _area(along[node], across[node])
            total += layer.macs * positions
            saved += layer.macs * (positions - area if area <= WHOLE * positions else 0)
        enough = saved * len(image.padded) >= SAVED * len(self._layers)
        return total > 0 and enough and saved >= SAVED_SHARE * total

    def logits(self, rows: Span, columns: Span, images: Tensor) -> Tensor:
        """Logits of the images, which differ from those known in a window at most. (batch, classes)"""
        self._undo = []
        self._opened(self._maps[self._images], rows, columns).copy_(images[..., slice(*rows), slice(*columns)])
        along, across = self._spans(0, *rows), self._spans(1, *columns)
        for node, layer in self._layers.items():
            (low, high), (left, right), output = along[node], across[node], self._maps[node]
            if not (area := _area((low, high), (left, right))):
                continue
            window = self._opened(output, (low, high), (left, right))
            if area > WHOLE * output.height * output.width:
                window.copy_(layer.whole(self._maps)[..., low:high, left:right])
            else:
                layer.write(self._maps, (low, high), (left, right), window)
        logits: Tensor = self._rest(*(self._maps[node].whole() for node in self._read))
        return logits

    def accept(self, better: Tensor) -> None:
        """Keep the window of some images, and undo that of the others. better: bool (batch,)."""
        chosen = better.view(-1, 1, 1, 1)
        for window, before in self._undo:
            torch.where(chosen, window, before, out=window)

    def reject(self) -> None:
        """Undo the window of all images."""
        for window, before in self._undo:
            window.copy_(before)

    def keep(self, keep: Tensor) -> None:
        """Drop images. keep: bool (batch,)."""
        self._undo = []
        for each in self._maps.values():
            each.padded = each.padded[keep]

    def _opened(self, target: Map, rows: Span, columns: Span) -> Tensor:
        """A window that may be written: what is there is kept for `accept`."""
        window = target.window(rows, columns)
        self._undo.append((window, window.clone()))
        return window

    def _spans_of(self, axis: int, low: int, high: int) -> dict[fx.Node, Span]:
        """How far a span of the images reaches along an axis: of each node the positions that hang on it."""
        spans = {self._images: (low, high)}
        for node, layer in self._layers.items():
            output = self._maps[node]
            size = (output.height, output.width)[axis]
            # of what a convolution is fused with, positions count one by one
            reached = [layer.reach(spans[layer.reads[0]], size, axis), *(spans[each] for each in layer.reads[1:])]
            reached = [span for span in reached if span[0] < span[1]] or [(0, 0)]
            spans[node] = (min(span[0] for span in reached), max(span[1] for span in reached))
        return spans


def windowed(graph: fx.GraphModule, images: Tensor, side: int) -> Windowed | None:
    """Passes of a network over windows of a side, beginning with these images.

    None where they would save too little: few images, a small network, a large window, or a window that soon reaches
    most of the features, as in a deep network.
    """
    with torch.no_grad():
        passes = Windowed(graph, images)
    return passes if passes.saves(side) else None


def _rest(graph: fx.GraphModule, known: list[fx.Node]) -> tuple[fx.GraphModule, list[fx.Node]]:
    """What comes after the nodes that are known, as a graph of its own, and which of these it takes."""
    rest, copies, read = fx.Graph(), dict[fx.Node, fx.Node](), []
    for node in known:
        if any(user not in known for user in node.users):
            copies[node] = rest.placeholder(node.name)
            read.append(node)
    for node in graph.graph.nodes:
        if node not in known and (node.users or node.op == "output"):
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return fx.GraphModule(graph, rest).eval(), read


def _pad(graph: fx.GraphModule, node: fx.Node) -> int:
    """The padding around the features of a node that the convolutions need which read it."""
    modules = [module_of(graph, user) for user in node.users]
    return max((max(_geometry(each)[0]) for each in modules if _windowed_convolution(each)), default=0)


def _layer(graph: fx.GraphModule, node: fx.Node) -> Layer | None:
    """What computes a node in windows; None if it mixes positions in another way than known here."""
    module, reads = module_of(graph, node), tuple(each for each in node.all_input_nodes if each.op != "get_attr")
    if isinstance(module, nn.Conv2d | FusedConvolution):
        return Convolution(node.args, module) if _windowed_convolution(module) and not node.kwargs else None
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        exact = _pair(module.padding) == (0, 0) and _pair(getattr(module, "dilation", 1)) == (1, 1)
        return Pooling(reads, module) if exact and not module.ceil_mode else None
    if isinstance(module, POINTWISE_LAYERS) and getattr(module, "running_mean", 0) is not None:
        function: Any = module
    elif node.op == "call_function" and node.target in POINTWISE:
        function = node.target
    elif node.op == "call_method" and node.target in POINTWISE_METHODS:
        function = getattr(Tensor, str(node.target))
    else:
        return None
    arguments = [
        operator.attrgetter(str(each.target))(graph) if isinstance(each, fx.Node) and each.op == "get_attr" else each
        for each in node.args
    ]
    constants = [each for each in (*arguments, *node.kwargs.values()) if not isinstance(each, fx.Node)]
    same = all(isinstance(each, int | float) or _same_everywhere(each) for each in constants)
    named = any(isinstance(each, fx.Node) for each in node.kwargs.values())
    return Pointwise(reads, function, tuple(arguments), dict(node.kwargs)) if same and not named else None


def _windowed_convolution(module: Any) -> bool:
    if isinstance(module, FusedConvolution):
        return module.geometry[3] == 1
    if type(module) is not nn.Conv2d or isinstance(module.padding, str):
        return False
    return module.padding_mode == "zeros" and module.groups == 1


def _geometry(module: Any) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """padding, stride, dilation"""
    if isinstance(module, FusedConvolution):
        padding, stride, dilation, _ = module.geometry
        return padding, stride, dilation
    return module.padding, module.stride, module.dilation


def _same_everywhere(constant: Any) -> bool:
    """Whether a constant is the same at all positions: a number, or one for each channel."""
    if not isinstance(constant, Tensor):
        return False
    return constant.dim() == 0 or (constant.dim() in (3, 4) and constant.shape[-2:] == (1, 1))


def _reached(span: Span, size: int, extent: int, stride: int, pad: int) -> Span:
    """The outputs that read a span of inputs, output o reading from o * stride - pad on, so many; (0, 0) for none."""
    low = max(0, -((extent - 1 - pad - span[0]) // stride))
    high = min(size, (span[1] - 1 + pad) // stride + 1)
    return (low, high) if span[0] < span[1] and low < high else (0, 0)


def _area(rows: Span, columns: Span) -> int:
    return (rows[1] - rows[0]) * (columns[1] - columns[0])


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
