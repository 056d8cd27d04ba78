"""A network that was converted for TensorFlow.js, computed by torch, with gradients.

Of TensorFlow's operations those of convolutional detectors are known. The images and features of TensorFlow are
(batch, height, width, channels), which is how torch's `channels_last` lies in memory: nothing is copied.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.tensorflow_js_file import GraphFile, Node
from service.errors import InputError, first_line

MOST_VALUES = 1 << 26  # of one feature map, for one image
MOST_SIDE = 4096  # of what is resized or padded
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": functional.relu,
    "Relu6": functional.relu6,
    "Sigmoid": torch.sigmoid,
}
SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"Add": torch.add, "AddV2": torch.add, "Mul": torch.mul}


class TensorFlowGraph(nn.Module):
    """Images to the outputs that were asked for. Its numbers are parameters, by the order of the graph."""

    def __init__(self, file: GraphFile, start: str, outputs: Sequence[str], shape: tuple[int, ...]) -> None:
        """start: name of the node that is given. outputs: of those that are wanted. shape: of one image, as given.

        InputError, one sentence, if the graph has an operation that is not known, if a shape does not fit, or if
        something in it is too large. Nothing is computed to find out.
        """
        super().__init__()
        self.start, self.outputs = start, tuple(outputs)
        self.steps = nn.ModuleList()
        self._inputs: list[tuple[str, ...]] = []
        self._names: list[str] = []
        for node in file.needed(start, outputs):
            inputs, step = _Builder(file, node).build()
            self.steps.append(step)
            self._inputs.append(inputs)
            self._names.append(node.name)
        last = {name: index for index, inputs in enumerate(self._inputs) for name in inputs}
        self._used_up = [tuple({name for name in inputs if last[name] == at}) for at, inputs in enumerate(self._inputs)]
        self._check(file.name, shape)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (batch, ...) as the graph takes them. Returns the outputs, in the order of their names."""
        kept = {name: value for name, value in self._values(images) if name in self.outputs}
        return [kept[name] for name in self.outputs]

    def _values(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """What each node computes. What no later one takes is let go of."""
        values = {self.start: images}
        for name, inputs, step, used_up in zip(self._names, self._inputs, self.steps, self._used_up, strict=True):
            value = step(*[values[each] for each in inputs])
            for each in used_up:
                del values[each]
            values[name] = value
            yield name, value

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        """Whether shapes fit and are not too large: on a device that has shapes only."""
        network, node = deepcopy(self).to("meta"), self.start
        try:
            for node, value in network._values(torch.empty((1, *shape), device="meta")):
                if value.numel() > MOST_VALUES:
                    raise InputError(f"node {node!r} of {name} must have at most {MOST_VALUES:,} values")
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise InputError(f"{name} does not fit together after node {node!r}: {first_line(error)}") from error


class _Step(nn.Module):
    """A function of what a node takes, with what is constant in it."""

    def __init__(self, function: Callable[..., Tensor], constant: np.ndarray | None = None) -> None:
        super().__init__()
        self.function = function
        self.constant = None if constant is None else _parameter(constant)

    def forward(self, *values: Tensor) -> Tensor:
        if self.constant is None:
            return self.function(*values)
        return self.function(*values, self.constant)


class _Convolution(nn.Module):
    """A convolution of (batch, height, width, channels), with a bias and a ReLU where they are fused with it."""

    def __init__(
        self, kernel: np.ndarray, bias: np.ndarray | None, stride: tuple[int, int], is_same: bool, is_rectified: bool
    ) -> None:
        """kernel: (out, in, height, width); where features have more channels than `in`, groups have kernels alone."""
        super().__init__()
        self.kernel = _parameter(kernel)
        self.bias = None if bias is None else _parameter(bias)
        self.stride, self.is_same, self.is_rectified = stride, is_same, is_rectified

    def forward(self, features: Tensor) -> Tensor:
        features = features.permute(0, 3, 1, 2)
        padding = (0, 0)
        if self.is_same:
            down, across = (
                _same(features.shape[2 + axis], self.kernel.shape[2 + axis], self.stride[axis]) for axis in (0, 1)
            )
            if down % 2 == 0 and across % 2 == 0:
                padding = (down // 2, across // 2)
            else:  # TensorFlow puts the odd one after
                before = (across // 2, across - across // 2, down // 2, down - down // 2)
                features = functional.pad(features, before)
        groups = features.shape[1] // self.kernel.shape[1]
        features = functional.conv2d(features, self.kernel, self.bias, self.stride, padding, groups=groups)
        if self.is_rectified:
            features = features.relu()
        return features.permute(0, 2, 3, 1)


def _same(length: int, kernel: int, stride: int) -> int:
    """How many places TensorFlow adds to a side so that as many come out as go in, divided by the stride."""
    return max((-(-length // stride) - 1) * stride + kernel - length, 0)


def _pad(features: Tensor, amounts: tuple[int, ...], value: float) -> Tensor:
    """amounts: as torch has them, from the last axis to the first."""
    return functional.pad(features, amounts, value=value)


def _max_pool(features: Tensor, size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    return functional.max_pool2d(features.permute(0, 3, 1, 2), size, stride).permute(0, 2, 3, 1)


def _resize(features: Tensor, size: tuple[int, int], has_half_pixels: bool) -> Tensor:
    """Bilinear. Without half pixels, as TensorFlow's first version, the upper left corners lie on each other."""
    if has_half_pixels:
        resized = functional.interpolate(features.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
        return resized.permute(0, 2, 3, 1)
    for axis, length in ((1, size[0]), (2, size[1])):
        before = features.shape[axis]
        places = torch.arange(length, device=features.device, dtype=features.dtype) * (before / length)
        low = places.floor().long().clamp_max(before - 1)
        high = (low + 1).clamp_max(before - 1)
        share = (places - low).view((-1, 1, 1) if axis == 1 else (-1, 1))
        features = torch.lerp(features.index_select(axis, low), features.index_select(axis, high), share)
    return features


def _mean(features: Tensor, axes: tuple[int, ...], keeps: bool) -> Tensor:
    return features.mean(axes, keepdim=keeps)


def _concatenate(*features: Tensor, axis: int) -> Tensor:
    return torch.cat(features, axis)


def _parameter(constant: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(constant, np.float32)))


class _Builder:
    """One node as a step, and the names of what it takes. InputError, naming the node, if it is not known."""

    def __init__(self, file: GraphFile, node: Node) -> None:
        self.file, self.node = file, node

    def build(self) -> tuple[tuple[str, ...], nn.Module]:
        op, inputs = self.node.op, self.node.input
        if op in ACTIVATIONS:
            return self.features(1), _Step(ACTIVATIONS[op])
        if op in SUMS:
            return self.sum(SUMS[op])
        match op:
            case "Identity":
                return self.features(1), nn.Identity()
            case "Conv2D" | "_FusedConv2D" | "DepthwiseConv2dNative" | "FusedDepthwiseConv2dNative":
                return self.features(1), self.convolution("Depthwise" in op)
            case "LeakyRelu":
                slope = self.number("alpha")
                return self.features(1), _Step(partial(functional.leaky_relu, negative_slope=slope))
            case "Transpose":
                return self.features(1), _Step(partial(torch.permute, dims=self.integers(1)))
            case "Mean":
                return self.features(1), _Step(partial(_mean, axes=self.integers(1), keeps=self.flag("keep_dims")))
            case "ConcatV2":
                axis = self.integers(len(inputs) - 1)
                return self.features(len(inputs) - 1), _Step(partial(_concatenate, axis=self.one(axis)))
            case "Pad" | "PadV2":
                return self.features(1), self.pad()
            case "MaxPool":
                if self.text("padding") != "VALID":
                    raise self.error("must have the padding VALID")
                return self.features(1), _Step(
                    partial(_max_pool, size=self.sides("ksize"), stride=self.sides("strides"))
                )
            case "ResizeBilinear":
                return self.features(1), self.resize()
        raise self.error(f"is the operation {op!r}, which is not known here")

    def sum(self, function: Callable[[Tensor, Tensor], Tensor]) -> tuple[tuple[str, ...], nn.Module]:
        """Of two features, or of one and a constant."""
        features = tuple(name for name in self.node.input if name not in self.file.constants)
        if len(self.node.input) != 2 or not features:
            raise self.error("must take two inputs, one of them computed")
        if len(features) == 2:
            return features, _Step(function)
        (constant,) = [at for at, name in enumerate(self.node.input) if name in self.file.constants]
        return features, _Step(function, self.numbers(constant))

    def convolution(self, is_depthwise: bool) -> nn.Module:
        if self.text("data_format", "NHWC") != "NHWC" or set(
            self.attribute("dilations", "list", {}).get("i", ["1"])
        ) != {"1"}:
            raise self.error("must be a convolution of NHWC without dilation")
        padding, fused = self.text("padding"), self.texts("fused_ops")
        if padding not in ("SAME", "VALID") or fused not in ([], ["BiasAdd"], ["BiasAdd", "Relu"]):
            raise self.error(f"has the padding {padding} and the parts {fused}, which are not known here")
        kernel = self.numbers(1)
        if kernel.ndim != 4 or 0 in kernel.shape:
            raise self.error(f"must have a kernel of four sides; it has {kernel.shape}")
        if is_depthwise:  # (height, width, channels, kernels of each)
            kernel = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
        else:
            kernel = kernel.transpose(3, 2, 0, 1)
        bias = self.numbers(2) if fused else None
        return _Convolution(kernel, bias, self.sides("strides"), padding == "SAME", "Relu" in fused)

    def pad(self) -> nn.Module:
        amounts = self.constant(1)
        if (
            amounts.ndim != 2
            or amounts.shape[1] != 2
            or amounts.size
            and not 0 <= amounts.min() <= amounts.max() <= MOST_SIDE
        ):
            raise self.error("must be padded by an amount before and one after each axis")
        value = float(self.constant(2)) if self.node.op == "PadV2" and self.constant(2).size == 1 else 0.0
        return _Step(partial(_pad, amounts=tuple(amounts[::-1].ravel().tolist()), value=value))

    def resize(self) -> nn.Module:
        size = self.integers(1)
        if len(size) != 2 or not all(1 <= side <= MOST_SIDE for side in size) or self.flag("align_corners"):
            raise self.error(f"must be resized to two sides of 1 to {MOST_SIDE}, without aligned corners")
        return _Step(partial(_resize, size=size, has_half_pixels=self.flag("half_pixel_centers")))

    def features(self, count: int) -> tuple[str, ...]:
        """The names of the first inputs, which are computed."""
        names = tuple(self.node.input[:count])
        if len(names) < count or any(name in self.file.constants for name in names):
            raise self.error(f"must take {count} that are computed")
        return names

    def constant(self, place: int) -> np.ndarray:
        name = self.node.input[place] if place < len(self.node.input) else None
        if name not in self.file.constants:
            raise self.error(f"must have a constant as input {place}")
        return self.file.constants[name]

    def numbers(self, place: int) -> np.ndarray:
        """Weights: finite fractions."""
        numbers = self.constant(place)
        if numbers.dtype != np.float32 or not np.isfinite(numbers).all():
            raise self.error(f"must have finite fractions as input {place}")
        return numbers

    def integers(self, place: int) -> tuple[int, ...]:
        numbers = self.constant(place)
        if numbers.dtype != np.int32 or numbers.size > 8:
            raise self.error(f"must have at most 8 whole numbers as input {place}")
        return tuple(numbers.ravel().tolist())

    def one(self, numbers: tuple[int, ...]) -> int:
        if len(numbers) != 1:
            raise self.error("must have one axis")
        return numbers[0]

    def sides(self, name: str) -> tuple[int, int]:
        """Of a window or a stride: two of the four numbers that TensorFlow has."""
        numbers = self.attribute(name, "list", {}).get("i", [])
        try:
            one, down, across, other = (int(number) for number in numbers)
        except (ValueError, TypeError) as error:
            raise self.error(f"must have four whole numbers as {name}") from error
        if not (one == other == 1 and 1 <= down <= 16 and 1 <= across <= 16):
            raise self.error(f"must have 1, two numbers of 1 to 16, and 1 as {name}; it has {numbers}")
        return down, across

    def text(self, name: str, default: str = "") -> str:
        value = self.attribute(name, "s", None)
        return default if value is None else self.decoded(value)

    def texts(self, name: str) -> list[str]:
        return [self.decoded(value) for value in self.attribute(name, "list", {}).get("s", [])]

    def decoded(self, value: Any) -> str:
        try:
            return base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError) as error:
            raise self.error("has a text that cannot be read") from error

    def flag(self, name: str) -> bool:
        return self.attribute(name, "b", False) is True

    def number(self, name: str) -> float:
        value = self.attribute(name, "f", None)
        if not isinstance(value, int | float):
            raise self.error(f"must have a number as {name}")
        return float(value)

    def attribute(self, name: str, kind: str, default: Any) -> Any:
        value = self.node.attr.get(name, {}).get(kind, default)
        if isinstance(default, dict) and not isinstance(value, dict):
            raise self.error(f"must have a list as {name}")
        return value

    def error(self, problem: str) -> InputError:
        return InputError(f"node {self.node.name!r} of {self.file.name} {problem}")
