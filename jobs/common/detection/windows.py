"""A detector that is asked of the same images again and again, of which only windows change.

Its first layers are computed in a crop around the windows. Their features elsewhere are kept from the image as it was,
and what comes after them is computed in full. Nothing is approximated: priors and gradients are those of the whole pass
within float rounding.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.letterbox import letterbox, placed
from jobs.common.models.fused_convolution import FusedConvolution

Span = tuple[int, int]
"""the first row or column and the one after the last"""

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Identity)
PASSING = 50
"""multiply-adds that take as long as to write a number of the features and to read it again"""
SAVED = 0.2
"""of the work of the layers that are known, which windows must save: to crop and to paste takes time as well"""
KEPT = 1 << 30
"""bytes of features, for all images"""


class WindowedDetector:
    """Priors of images whose windows have changed."""

    def __init__(self, detector: Detector, layers: nn.Sequential, count: int) -> None:
        """detector: folded; it is changed, and answers as before. layers: as of `first_layers`. count: of those that
        are computed in windows, after Sequentials in them are taken apart.
        """
        assert detector.side is not None
        every = list(_flat(layers))
        self._detector, self._stem = detector, _Stem(every[:count], detector.side)
        for place in range(len(layers)):
            layers[place] = nn.Identity() if place else nn.Sequential(self._stem, *every[count:])

    def priors(self, images: Tensor, before: Tensor, places: Sequence[int], windows: Tensor) -> Priors:
        """As of the detector, of images (batch, 3, height, width). before: the same without what has changed.

        places: a number of each image, by which it is known again. windows: (batch, 4), corners in pixels of the images
        of what may have changed; an empty one where nothing has.
        """
        for row, place in enumerate(places):
            if place not in self._stem.kept:
                with torch.no_grad():  # one by one: the same features in any batch
                    frame, _ = letterbox(before[row : row + 1], self._stem.side, self._stem.side)
                    self._stem.kept[place] = self._stem.layers(frame)
        self._stem.windows = places, _in_frame(windows, images, self._stem.side).tolist()
        try:
            return self._detector.priors(images)
        finally:
            self._stem.windows = None


def windowed(detector: Detector, windows: Tensor, images: Tensor, count: int) -> WindowedDetector | None:
    """The detector for windows, if they are small enough to save time; None otherwise, and of detectors without
    `first_layers`.

    detector: folded, on the CPU. windows: (some, 4), as they are to be expected. images: one or more of those to come.
    count: how many images there are.
    """
    first, side = detector.first_layers(), detector.side
    if first is None or side is None or not len(windows):
        return None
    layers = list(_flat(first))
    frames = _in_frame(windows, images, side)
    sides = (frames[:, 2:] - frames[:, :2]).double().mean(0).ceil().long().tolist()
    known = list[tuple[int, int, int]]()
    for layer in layers:
        if (geometry := _geometry(layer)) is None:
            break
        known.append(geometry)
    best, least = 0, float("inf")
    works = _works(layers, len(known), side)
    for number in range(1, len(known) + 1):
        stride = _stride(known[:number])
        if side % stride:
            break
        stem = _Stem(layers[:number], side)
        area = 1.0
        for each in sides:
            start = (side - each) // 2
            area *= stem.spans(start, start + each)[1] / side
        work = area * sum(works[:number]) + sum(works[number:])
        features = count * 4 * _channels(layers[:number]) * (side // stride) ** 2
        if work < least and features <= KEPT:
            best, least = number, work
    return WindowedDetector(detector, first, best) if best and least <= (1 - SAVED) * sum(works) else None


class _Stem(nn.Module):
    """The first layers: in windows where these are said, else whole."""

    def __init__(self, layers: Sequence[nn.Module], side: int) -> None:
        super().__init__()
        self.layers, self.side = nn.Sequential(*layers), side
        self.kept: dict[int, Tensor] = {}
        """features (1, channels, rows, columns) of images without windows"""
        self.windows: tuple[Sequence[int], list[list[int]]] | None = None
        self.geometry = [each for layer in layers if (each := _geometry(layer)) is not None]
        assert len(self.geometry) == len(layers)
        self.stride = _stride(self.geometry)
        self.spans = cache(self._spans)

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (batch, 3, side, side). Returns (batch, channels, rows, columns)."""
        if self.windows is None:
            features: Tensor = self.layers(frames)
            return features
        places, windows = self.windows
        across = [self.spans(left, right) for left, _, right, _ in windows]
        down = [self.spans(top, bottom) for _, top, _, bottom in windows]
        size = max(length for _, length, _ in down), max(length for _, length, _ in across)
        starts = [
            (min(row[0], self.side - size[0]), min(column[0], self.side - size[1]))
            for row, column in zip(down, across, strict=True)
        ]
        features = self.layers(_Crop.apply(frames, starts, size))
        cells = [(row[2], column[2]) for row, column in zip(down, across, strict=True)]
        corners = [(row // self.stride, column // self.stride) for row, column in starts]
        pasted: Tensor = _Paste.apply(features, [self.kept[place] for place in places], cells, corners)
        return pasted

    def _spans(self, low: int, high: int) -> tuple[int, int, Span]:
        """Where the crop begins for a window, how long it has to be, and the features that hang on the window."""
        if low >= high:
            return 0, self.stride, (0, 0)
        sizes = list(accumulate(self.geometry, lambda size, each: _size(size, *each), initial=self.side))
        for (extent, stride, pad), size in zip(self.geometry, sizes[1:], strict=True):
            low, high = max(0, -((extent - 1 - pad - low) // stride)), min(size, (high - 1 + pad) // stride + 1)
        cells = low, high
        for (extent, stride, pad), size in zip(self.geometry[::-1], sizes[-2::-1], strict=True):
            low, high = max(0, low * stride - pad), min(size, (high - 1) * stride - pad + extent)
        low = low // self.stride * self.stride
        return low, -((low - high) // self.stride) * self.stride, cells


class _Crop(torch.autograd.Function):
    """A part of each frame, channels last. starts: row and column of each. size: height and width of all."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, starts: list[tuple[int, int]], size: tuple[int, int]) -> Tensor:
        ctx.starts, ctx.shape = starts, frames.shape
        crops = _channels_last(frames, (len(frames), frames.shape[1], *size))
        for crop, frame, (row, column) in zip(crops, frames, starts, strict=True):
            crop.copy_(frame[:, row : row + size[0], column : column + size[1]])
        return crops

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        whole = slopes.new_zeros(ctx.shape)
        for crop, frame, (row, column) in zip(slopes, whole, ctx.starts, strict=True):
            frame[:, row : row + crop.shape[1], column : column + crop.shape[2]] = crop
        return whole, None, None


class _Paste(torch.autograd.Function):
    """Features of crops among those that are kept. cells: rows and columns of each that change. corners: of the crops,
    in cells.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, kept: list[Tensor], cells: list[tuple[Span, Span]], corners: list[tuple[int, int]]
    ) -> Tensor:
        ctx.cells, ctx.corners, ctx.shape = cells, corners, features.shape
        whole = torch.cat(kept, out=_channels_last(features, (len(kept), *kept[0].shape[1:])))
        for target, source, ((top, bottom), (left, right)), (row, column) in zip(
            whole, features, cells, corners, strict=True
        ):
            target[:, top:bottom, left:right] = source[:, top - row : bottom - row, left - column : right - column]
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None, None]:
        parts = _channels_last(slopes, ctx.shape).zero_()
        for target, source, ((top, bottom), (left, right)), (row, column) in zip(
            parts, slopes, ctx.cells, ctx.corners, strict=True
        ):
            target[:, top - row : bottom - row, left - column : right - column] = source[:, top:bottom, left:right]
        return parts, None, None, None


def _flat(layers: nn.Sequential) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
            yield from _flat(layer)
        else:
            yield layer


def _channels_last(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _in_frame(windows: Tensor, images: Tensor, side: int) -> Tensor:
    """Windows in pixels of the frame that a detector scales images into: int64 (n, 4)."""
    size = (images.shape[2], images.shape[3])
    placement, scaled = placed(size, (side, side))
    # where an image is resized, a pixel reaches those beside it
    reach = 0 if scaled == size else max(1.0, placement.down, placement.across) + 1
    corners = placement.into(windows.double())
    low, high = (corners[:, :2] - reach).floor(), (corners[:, 2:] + reach).ceil()
    empty = (windows[:, 2:] <= windows[:, :2]).any(1)
    return torch.cat([low, high], 1).clamp(0, side).masked_fill(empty[:, None], 0).long()


def _geometry(layer: nn.Module) -> tuple[int, int, int] | None:
    """Extent, stride and padding of a layer, alike along both axes; None if it is none of those known here."""
    if type(layer) in POINTWISE:
        return 1, 1, 0
    if isinstance(layer, FusedConvolution):
        padding, stride, dilation, _ = layer.geometry
        kernel = list(layer.weight.shape[2:])
    elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        padding, stride, dilation = list(layer.padding), list(layer.stride), list(layer.dilation)
        kernel = list(layer.weight.shape[2:])
    elif type(layer) is nn.MaxPool2d and not layer.ceil_mode and not layer.return_indices:
        padding, stride, dilation, kernel = (
            _pair(each) for each in (layer.padding, layer.stride, layer.dilation, layer.kernel_size)
        )
    else:
        return None
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    if hooked or any(len(set(each)) > 1 for each in (padding, stride, dilation, kernel)):
        return None
    return dilation[0] * (kernel[0] - 1) + 1, stride[0], padding[0]


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _stride(geometry: Sequence[tuple[int, int, int]]) -> int:
    total = 1
    for _, stride, _ in geometry:
        total *= stride
    return total


def _size(size: int, extent: int, stride: int, pad: int) -> int:
    return (size + 2 * pad - extent) // stride + 1


def _channels(layers: Sequence[nn.Module]) -> int:
    return next((len(each.weight) for each in layers[::-1] if isinstance(each, nn.Conv2d | FusedConvolution)), 3)


def _works(layers: Sequence[nn.Module], count: int, side: int) -> list[float]:
    """How long each of the first layers takes, in multiply-adds of an image."""
    works, channels = list[float](), 3
    for layer in layers[:count]:
        geometry = _geometry(layer)
        assert geometry is not None
        side = _size(side, *geometry)
        weights = 0
        if isinstance(layer, nn.Conv2d | FusedConvolution):
            channels, weights = len(layer.weight), layer.weight[0].numel()
        passing = 0 if isinstance(layer, nn.Identity) else PASSING
        works.append(channels * side**2 * (weights + passing))
    return works
