"""A convolution and what follows it in one pass on a CPU, with gradients of what it is given, not of its weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MANY_CHANNELS = 128  # from which to look for zeros among gradients takes little of the time of a convolution
FEW_PLACES = 0.25  # of the gradients of an output, below which those that are zero are left out
FEW_CHANNELS = 4
LINEAR = 1.0
"""the slope below zero of a leaky ReLU that changes nothing"""
DENSE = 1 << 18
"""entries of the matrix of a whole convolution, up to which one product with it is faster than many small ones"""

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
    parts = parts.view(len(places), kernel[0] * kernel[1], channels)
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
