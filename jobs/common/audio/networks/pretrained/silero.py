"""Silero VAD: a network that hears whether somebody speaks.

Silero Team 2024, "Silero VAD" (github.com/snakers4/silero-vad), version 6 at 16 kHz; the weights are those of the
package silero-vad.
"""

from pathlib import Path

import safetensors.torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from jobs.common.data.packages import SILERO_VAD

RATE = 16_000  # Hz
CHUNK = 512  # samples that are decided on at a time
CONTEXT = 64  # samples before a chunk that are heard with it
MIRRORED = 64  # samples after a chunk
WINDOW, HOP = 256, 128  # of the spectrum
BINS = WINDOW // 2 + 1
CHANNELS = (128, 64, 64, 128)
STRIDES = (1, 2, 2, 1)
LEAST_POWER = 1e-12  # so that the magnitude of silence has a gradient


class Spectrum(nn.Module):
    """The magnitudes of a learnt Fourier transform of each chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2 * BINS, (1, WINDOW), (1, HOP), bias=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, samples). Returns (batch, bins, chunks, 4).

        What is left after the last whole chunk is not heard.
        """
        whole = sounds.shape[-1] // CHUNK * CHUNK
        chunks = functional.pad(sounds[:, :whole], (CONTEXT, 0)).unfold(-1, CONTEXT + CHUNK, CHUNK)
        chunks = functional.pad(chunks, (0, MIRRORED), mode="reflect")  # (batch, chunks, samples)
        real, imaginary = self.convolution(chunks[:, None]).split(BINS, 1)
        magnitudes: Tensor = (real.square() + imaginary.square() + LEAST_POWER).sqrt()
        return magnitudes


class Convolution(nn.Module):
    """The ReLU of the layer before, then a convolution of each chunk."""

    def __init__(self, before: int, channels: int, stride: int, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.convolution = nn.Conv2d(before, channels, (1, 3), (1, stride), (0, 1))

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, chunks, frames of a chunk)."""
        convolved: Tensor = self.convolution(features if self.is_first else features.relu())
        return convolved


class Memory(nn.Module):
    """What the network has heard so far: a recurrent layer over the chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(CHANNELS[-1], CHANNELS[-1], batch_first=True)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, chunks, 1). Returns the same shape."""
        states: Tensor = self.cell(features.relu().squeeze(3).transpose(1, 2))[0]  # (batch, chunks, channels)
        return states.transpose(1, 2)[..., None]


class Speech(nn.Module):
    """One logit for each chunk: whether somebody speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(CHANNELS[-1], 1, 1)

    def forward(self, states: Tensor) -> Tensor:
        """states: (batch, channels, chunks, 1)."""
        logits: Tensor = self.convolution(states.relu())
        return logits


class SileroVad(SoundNetwork):
    """Silero VAD at 16 kHz: 0.31 million weights, a decision every 32 ms."""

    def __init__(self) -> None:
        sizes = zip((BINS, *CHANNELS), CHANNELS, STRIDES, strict=False)
        convolutions = {f"conv{index + 1}": Convolution(*size, index == 0) for index, size in enumerate(sizes)}
        stages = {"spectrum": Spectrum(), **convolutions, "memory": Memory(), OUTPUT: Speech()}
        super().__init__(RATE, ("speech",), stages, CHUNK)
        self.rectified = (*convolutions, "memory")

    def frames_of(self, layer: str, output: Tensor, batch: int) -> Tensor:
        return output.flatten(2)


def load(folder: Path | None = None) -> SileroVad:
    """With its weights, in evaluation mode. folder: of data; none: the default one. InputError: it is not there."""
    weights = safetensors.torch.load_file(SILERO_VAD.path("silero_vad_16k.safetensors", folder))
    network = SileroVad()
    network.load_state_dict({_own_name(name): _two_sided(tensor) for name, tensor in weights.items()})
    return network.eval().requires_grad_(False)


def _own_name(name: str) -> str:
    """Of a weight: stft_conv, conv1 to conv4, lstm_cell and final_conv there."""
    layer, _, rest = name.partition(".")
    match layer:
        case "stft_conv":
            return f"stages.spectrum.convolution.{rest}"
        case "lstm_cell":
            return f"stages.memory.cell.{rest}_l0"
        case "final_conv":
            return f"stages.{OUTPUT}.convolution.{rest}"
    return f"stages.{layer}.convolution.{rest}"


def _two_sided(tensor: Tensor) -> Tensor:
    """A kernel (out, in, places) as (out, in, 1, places)."""
    return tensor[:, :, None] if tensor.ndim == 3 else tensor
