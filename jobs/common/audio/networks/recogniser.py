"""A small recogniser of spoken words: a log-mel spectrogram and convolutions in time, after Jasper (Li et al. 2019)."""

from collections.abc import Sequence

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
            stages[f"conv{place + 1}"] = nn.Sequential(
                nn.ReLU() if place else Scaled(), convolution, nn.BatchNorm1d(count)
            )
            before = count
        stages[OUTPUT] = Pooled(before, len(classes))
        super().__init__(rate, classes, stages, mel.shortest)
        self.rectified = tuple(name for name in stages if name.startswith("conv"))

    def channels(self, inputs: Tensor, layer: str, numbers: Tensor, after: str | None = None) -> Tensor:
        """Of a convolution, one filter for each row: many times less than all of them."""
        if layer not in self.rectified or layer == after:
            return super().channels(inputs, layer, numbers, after)
        before = self.layers[self.layers.index(layer) - 1]
        if before != after:
            inputs = self.activations(inputs, [before], after)[before]
        stage = self.stages[layer]
        assert isinstance(stage, nn.Sequential)
        nonlinearity, convolution, norm = stage
        assert isinstance(convolution, nn.Conv1d) and isinstance(norm, nn.BatchNorm1d)
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - scale * norm.running_mean
        answers: Tensor = convolved_each(nonlinearity(inputs), convolution, numbers)
        scaled: Tensor = answers * scale[numbers, None] + shift[numbers, None]
        return scaled


def convolved_each(features: Tensor, convolution: nn.Conv1d, numbers: Tensor) -> Tensor:
    """One filter of a convolution without bias for each row.

    features: (rows, channels, frames). numbers: int64 (rows,). Returns (rows, frames of the convolution).
    """
    assert not isinstance(convolution.padding, str)
    (kernel,), (stride,), (padding,) = convolution.kernel_size, convolution.stride, convolution.padding
    products = convolution.weight[numbers].transpose(1, 2) @ features  # (rows, kernel, frames): of each tap alone
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
