"""The encoder of Moonshine tiny: a network that hears English speech, at ten depths.

Jeffries, King, Kudlur, Nicholson, Wang, Warden 2024, "Moonshine: Speech Recognition for Live Transcription and Voice
Commands" (arXiv 2410.15608), section 3. The weights are those of the package moonshine-voice. Its matrices have 8 bits
and are brought back to floats here.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from jobs.common.audio.networks.pretrained import onnxruntime_file
from jobs.common.audio.networks.pretrained.onnxruntime_file import Operation, OrtNetwork
from jobs.common.data.packages import MOONSHINE

RATE = 16_000  # Hz
WIDTH = 288
HEADS = 8
ROTATED = 32  # of the 36 dimensions of a head
BASE = 10_000.0  # of the periods of rotation
BLOCKS = 6
MATRICES = {
    "self_attn/q_proj": "attention.query",
    "self_attn/k_proj": "attention.key",
    "self_attn/v_proj": "attention.value",
    "self_attn/o_proj": "attention.out",
    "mlp/fc1": "perceptron.0",
    "mlp/fc2": "perceptron.2",
}
"""of a block: their paths in the file, and their names here"""
SHORTEST = 895  # samples: three convolutions, of 127, 7 and 3 places, with strides of 64, 3 and 2


class FirstConvolution(nn.Module):
    """The filters of the waveform, 4 ms apart."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, WIDTH, 127, 64, bias=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, samples)."""
        convolved: Tensor = self.convolution(sounds[:, None])
        return convolved


class SecondConvolution(nn.Module):
    """The nonlinearity and the norm after the first convolution, then the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, WIDTH)
        self.convolution = nn.Conv1d(WIDTH, 2 * WIDTH, 7, 3)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, 288, frames)."""
        convolved: Tensor = self.convolution(self.norm(features.tanh()))
        return convolved


class ThirdConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(2 * WIDTH, WIDTH, 3, 2)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, 576, frames). Its frames are 24 ms apart."""
        convolved: Tensor = self.convolution(functional.gelu(features))
        return convolved


class Attention(nn.Module):
    """Every frame looks at all others, with rotary positions (Su et al. 2021, section 3.4.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (batch, frames, 288)."""
        query, key, value = (
            linear(frames).unflatten(2, (HEADS, -1)).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )  # (batch, heads, frames, 36)
        mixed = functional.scaled_dot_product_attention(rotated(query), rotated(key), value)
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return answer


def rotated(vectors: Tensor) -> Tensor:
    """Neighbouring pairs of the first 32 dimensions turned by an angle that grows with the frame's place.

    vectors: (batch, heads, frames, 36).
    """
    periods = BASE ** (torch.arange(0, ROTATED, 2, device=vectors.device) / ROTATED)
    angles = torch.arange(vectors.shape[2], device=vectors.device)[:, None] / periods  # (frames, 16)
    cosine, sine = angles.cos(), angles.sin()
    even, odd = vectors[..., :ROTATED:2], vectors[..., 1:ROTATED:2]
    turned = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), -1).flatten(-2)
    return torch.cat((turned, vectors[..., ROTATED:]), -1)


class Block(nn.Module):
    """A transformer layer: attention, then a perceptron, each added to what comes in."""

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.attention_norm, self.perceptron_norm = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.attention = Attention()
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (batch, frames, 288); of the first, what the third convolution puts out."""
        if self.is_first:
            frames = functional.gelu(frames).transpose(1, 2)
        frames = frames + self.attention(self.attention_norm(frames))
        added: Tensor = frames + self.perceptron(self.perceptron_norm(frames))
        return added


class MoonshineEncoder(SoundNetwork):
    """The encoder of Moonshine tiny: 7.6 million weights. The channels of its last layer are what the decoder reads."""

    def __init__(self) -> None:
        convolutions = {"conv1": FirstConvolution(), "conv2": SecondConvolution(), "conv3": ThirdConvolution()}
        blocks = {f"block{index + 1}": Block(index == 0) for index in range(BLOCKS)}
        names = [f"channel {index}" for index in range(WIDTH)]
        stages = {**convolutions, **blocks, OUTPUT: nn.LayerNorm(WIDTH, bias=False)}
        super().__init__(RATE, names, stages, SHORTEST)

    def frames_of(self, layer: str, output: Tensor, batch: int) -> Tensor:
        return output if layer.startswith("conv") else output.transpose(1, 2)


def load(folder: Path | None = None) -> MoonshineEncoder:
    """With its weights, in evaluation mode. folder: of data; none: the default one. InputError: it is not there."""
    file = onnxruntime_file.read(MOONSHINE.path("encoder_model.ort", folder))
    network = MoonshineEncoder()
    network.load_state_dict({name: torch.tensor(values) for name, values in _weights(file)})
    return network.eval().requires_grad_(False)


def _weights(file: OrtNetwork) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of the file by the names that they have here."""
    constants = file.constants
    for index in (1, 2, 3):
        yield f"stages.conv{index}.convolution.weight", constants[f"conv{index}.weight_add_tensor"]
    for index in (2, 3):
        yield f"stages.conv{index}.convolution.bias", constants[f"conv{index}.bias"]
    operations = {operation.name: operation for operation in file.operations}
    for kind, name in (("Mul", "weight"), ("Add", "bias")):
        yield f"stages.conv2.norm.{name}", constants[operations[f"/groupnorm/{kind}"].inputs[1]].ravel()
    for index in range(BLOCKS):
        theirs, ours = f"layers.{index}", f"stages.block{index + 1}"
        yield f"{ours}.attention_norm.weight", constants[f"{theirs}.input_layernorm.weight"]
        yield f"{ours}.perceptron_norm.weight", constants[f"{theirs}.post_attention_layernorm.weight"]
        for place, name in ((0, "fc1"), (2, "fc2")):
            yield f"{ours}.perceptron.{place}.bias", constants[f"{theirs}.mlp.{name}.bias"]
        for path, name in MATRICES.items():
            yield f"{ours}.{name}.weight", _matrix(constants, operations[f"/{theirs}/{path}/MatMul_quant"])
    yield f"stages.{OUTPUT}.weight", constants["layer_norm.weight"]


def _matrix(constants: dict[str, np.ndarray], product: Operation) -> np.ndarray:
    """The matrix of a product as floats, (outputs, inputs): (8 bits - zero point) * scale."""
    name = next(each for each in product.inputs if each.endswith("_quantized") and each in constants)
    own = name.removesuffix("_quantized")
    steps = constants[name].astype(np.int32) - constants[f"{own}_zero_point"].astype(np.int32)
    return np.ascontiguousarray((steps * constants[f"{own}_scale"]).astype(np.float32).T)
