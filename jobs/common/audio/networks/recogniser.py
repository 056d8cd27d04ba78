"""A small recogniser of spoken words: a log-mel spectrogram and convolutions in time, after Jasper (Li et al. 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.audio.mel import LogMel
from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from jobs.common.models.architectures import LARGEST
from service.errors import FieldError

MEAN, SPREAD = -6.0, 4.0  # about those of the log-mels of speech: what pads a spectrogram is then near the mean
CHANNELS = (64, 96, 96, 128, 128)
KERNELS = (11, 11, 13, 13, 17)
STRIDES = (1, 2, 1, 2, 1)
MOST_LAYERS = 50


class Scaled(nn.Module):
    """Log-mels of speech with a mean near 0 and a standard deviation near 1."""

    def forward(self, mels: Tensor) -> Tensor:
        return (mels - MEAN) / SPREAD


class Block(nn.Sequential):
    """A nonlinearity, a convolution in time, and its batch norm."""

    def __init__(self, nonlinearity: nn.Module, convolution: nn.Conv1d, norm: nn.BatchNorm1d) -> None:
        """convolution: without bias, its padding a number."""
        super().__init__(nonlinearity, convolution, norm)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, frames). Returns the same."""
        nonlinearity, convolution, norm = self.parts
        if self.training or not features.is_cpu or len(features) == 1:  # torch computes one sound in another way
            answers: Tensor = norm(convolution(nonlinearity(features)))
            return answers
        weight, bias = self.folded()
        # the channels of a frame next to each other, as in the spectrogram: a sixth less time
        images = nonlinearity(features).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        stride, padding = (1, self.stride), (0, self.padding)
        return functional.conv2d(images, weight.unsqueeze(2), bias, stride, padding).squeeze(2)

    def folded(self, filters: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Filters of the convolution as the batch norm of evaluation scales and moves what they answer.

        Returns weight (filters, channels, kernel) and bias (filters,).
        """
        _, convolution, norm = self.parts
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - scale * norm.running_mean
        return convolution.weight[filters] * scale[filters, None, None], bias[filters]

    @property
    def parts(self) -> tuple[nn.Module, nn.Conv1d, nn.BatchNorm1d]:
        nonlinearity, convolution, norm = self
        assert isinstance(convolution, nn.Conv1d) and isinstance(norm, nn.BatchNorm1d)
        return nonlinearity, convolution, norm

    @property
    def stride(self) -> int:
        return self.parts[1].stride[0]

    @property
    def padding(self) -> int:
        padding = self.parts[1].padding[0]
        assert isinstance(padding, int)
        return padding


class Pooled(nn.Module):
    """The mean over time after a ReLU, and one logit for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, frames). Returns (batch, classes, 1)."""
        logits: Tensor = self.linear(features.relu().mean(2))
        return logits[:, :, None]


class Recogniser(SoundNetwork):
    """Layers mel, conv1, conv2, …: a convolution with its batch norm, before the ReLU that the next one begins with."""

    def __init__(
        self,
        classes: Sequence[str],
        rate: int = 16_000,
        bands: int = 64,
        channels: Sequence[int] = CHANNELS,
        kernels: Sequence[int] = KERNELS,
        strides: Sequence[int] = STRIDES,
    ) -> None:
        """classes: their names. bands: of the spectrogram, whose windows last 20 ms and follow each other every 10 ms.

        channels, kernels, strides: of each convolution. FieldError names one that is out of its range.
        """
        _check(classes, rate, bands, channels, kernels, strides)
        hop = rate // 100
        mel = LogMel(rate, bands, size=_power_of_two(2 * hop), window=2 * hop, hop=hop)
        stages: dict[str, nn.Module] = {"mel": mel}
        before = bands
        for place, (count, kernel, stride) in enumerate(zip(channels, kernels, strides, strict=True)):
            convolution = nn.Conv1d(before, count, kernel, stride, padding=kernel // 2, bias=False)
            stages[f"conv{place + 1}"] = Block(nn.ReLU() if place else Scaled(), convolution, nn.BatchNorm1d(count))
            before = count
        stages[OUTPUT] = Pooled(before, len(classes))
        super().__init__(rate, classes, stages, mel.shortest)
        self.rectified = tuple(name for name in stages if name.startswith("conv"))

    def channels(self, inputs: Tensor, layer: str, numbers: Tensor, after: str | None = None) -> Tensor:
        """Of a convolution, one filter for each row: many times less than all of them."""
        if layer not in self.rectified or layer == after:
            return super().channels(inputs, layer, numbers, after)
        return self._filtered(inputs, layer, after, *self._block(layer).folded(numbers))

    def along(self, inputs: Tensor, layer: str, directions: Tensor, after: str | None = None) -> Tensor:
        """Of a convolution, the same combination of its filters for each row."""
        if layer not in self.rectified or layer == after:
            return super().along(inputs, layer, directions, after)
        weight, bias = self._block(layer).folded()
        combined = (directions @ weight.flatten(1)).view(-1, *weight.shape[1:])
        return self._filtered(inputs, layer, after, combined, directions @ bias)

    def _filtered(self, inputs: Tensor, layer: str, after: str | None, weight: Tensor, bias: Tensor) -> Tensor:
        """A layer with a filter for each row in place of its own: (rows, frames).

        weight: (rows, channels, kernel). bias: (rows,).
        """
        before = self.layers[self.layers.index(layer) - 1]
        if before != after:
            inputs = self.activations(inputs, [before], after)[before]
        block = self._block(layer)
        nonlinearity, *_ = block.parts
        return convolved_each(nonlinearity(inputs), weight, block.stride, block.padding) + bias[:, None]

    def _block(self, layer: str) -> Block:
        block = self.stages[layer]
        assert isinstance(block, Block)
        return block


def convolved_each(features: Tensor, filters: Tensor, stride: int, padding: int) -> Tensor:
    """Each row convolved with a filter of its own.

    features: (rows, channels, frames). filters: (rows, channels, kernel). Returns (rows, frames of the convolution).
    """
    kernel = filters.shape[2]
    products = filters.transpose(1, 2) @ features  # (rows, kernel, frames): of each tap alone
    products = functional.pad(products, (padding, padding))
    frames = products.shape[2]
    # rows of one element more than there are: in the row of a tap, its frames move by one for each tap before it
    moved = functional.pad(products.flatten(1), (0, kernel)).view(-1, kernel, frames + 1)
    return moved[:, :, : frames - kernel + 1 : stride].sum(1)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _check(
    classes: Sequence[str],
    rate: int,
    bands: int,
    channels: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
) -> None:
    """FieldError: a stranger's card may say anything."""
    if not 2 <= len(classes) <= LARGEST:
        raise FieldError("classes", f"be from 2 to {LARGEST:,} names", len(classes))
    if not 4_000 <= rate <= 192_000:
        raise FieldError("rate", "be from 4,000 to 192,000", rate)
    if not 1 <= bands <= 1024:
        raise FieldError("bands", "be from 1 to 1,024", bands)
    if not 1 <= len(channels) <= MOST_LAYERS:
        raise FieldError("channels", f"be from 1 to {MOST_LAYERS}, one for each convolution", channels)
    for name, values in (("channels", channels), ("kernels", kernels), ("strides", strides)):
        if len(values) != len(channels):
            raise FieldError(name, f"be {len(channels)}, as channels are", values)
        if any(not 1 <= value <= LARGEST for value in values):
            raise FieldError(name, f"be from 1 to {LARGEST:,} each", values)
    if any(kernel % 2 == 0 for kernel in kernels):
        raise FieldError("kernels", "be odd, so that frames stay where they are", kernels)
