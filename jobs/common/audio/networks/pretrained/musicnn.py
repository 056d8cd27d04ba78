"""The VGG of musicnn: a network that tags music.

Pons & Serra 2019, "musicnn: Pre-trained convolutional neural networks for music audio tagging" (arXiv 1909.06654), its
model MTT_vgg, trained on MagnaTagATune. The weights are those of the package musicnn, a checkpoint of TensorFlow.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from jobs.common.audio.networks.pretrained import tensorflow_file
from jobs.common.data.packages import MUSICNN

RATE = 16_000  # Hz
SIZE, HOP, BANDS = 512, 256, 96  # of the spectrum
PIECE = 187  # frames, 3 s: what the network was trained on
CHANNELS = 128
POOLS = (((4, 1), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4)))
"""size and stride of what follows each convolution, in frames and bands"""
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
"""parts of a batch norm: their names here and in the checkpoint"""
LAST = 2  # frames of a piece that are left after the pools
TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient"),
    *("beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals"),
    *("harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo"),
    *("man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello"),
    *("no voice", "weird", "country", "metal", "female voice", "choral"),
)


class Mel(nn.Module):
    """The logarithm of mel powers, as librosa's are by default.

    Theirs pass through half precision, which has no useful gradient and which this leaves out.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram  # few processes need it

        self.powers = MelSpectrogram(RATE, SIZE, hop_length=HOP, n_mels=BANDS, norm="slaney", mel_scale="slaney")

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, samples). Returns (batch, 1, frames, bands)."""
        powers: Tensor = self.powers(sounds).transpose(1, 2)[:, None]
        return (1 + 10_000 * powers).log10()


class Convolution(nn.Module):
    """What follows the convolution before (ReLU, batch norm, pooling), then a convolution."""

    def __init__(self, before: int, pool: tuple[tuple[int, int], tuple[int, int]] | None) -> None:
        """pool: size and stride; None: this is the first convolution."""
        super().__init__()
        self.pool = pool
        self.norm = nn.BatchNorm2d(before, eps=0.001)
        self.convolution = nn.Conv2d(before, CHANNELS, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, frames, bands)."""
        convolved: Tensor = self.convolution(_pooled(features, self.norm, self.pool))
        return convolved


class Tags(nn.Module):
    """What follows the last convolution, then one logit for each tag of every 3 seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS, eps=0.001)
        self.dense = nn.Conv2d(CHANNELS, len(TAGS), (LAST, 1))

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, 128, frames, bands). Returns (batch, 50, frames, 1)."""
        logits: Tensor = self.dense(_pooled(features, self.norm, POOLS[-1]))
        return logits


def _pooled(features: Tensor, norm: nn.BatchNorm2d, pool: tuple[tuple[int, int], tuple[int, int]] | None) -> Tensor:
    normalised: Tensor = norm(features if pool is None else features.relu())
    return normalised if pool is None else functional.max_pool2d(normalised, *pool)


class MusicnnVgg(SoundNetwork):
    """musicnn's MTT_vgg: 0.61 million weights, 50 tags, the last layer being as wide as 3 seconds."""

    def __init__(self) -> None:
        convolutions = {"conv1": Convolution(1, None)}
        convolutions |= {f"conv{index}": Convolution(CHANNELS, pool) for index, pool in enumerate(POOLS[:-1], start=2)}
        super().__init__(RATE, TAGS, {"mel": Mel(), **convolutions, OUTPUT: Tags()}, (PIECE - 1) * HOP)
        self.rectified = tuple(convolutions)

    def frames_of(self, layer: str, output: Tensor, batch: int) -> Tensor:
        """Bands are the channels of the spectrogram, and are averaged elsewhere."""
        return output[:, 0].transpose(1, 2) if layer == self.front_end else output.mean(3)


def load(folder: Path | None = None) -> MusicnnVgg:
    """With its weights, in evaluation mode. folder: of data; none: the default one. InputError: it is not there."""
    index, data = MUSICNN.path(".index", folder), MUSICNN.path(".data-00000-of-00001", folder)
    numbers = {name: torch.tensor(values) for name, values in tensorflow_file.read(index, data).items()}
    network = MusicnnVgg()
    state = network.state_dict()
    network.load_state_dict({name: _weight(name, numbers, tensor) for name, tensor in state.items()})
    return network.eval().requires_grad_(False)


def _weight(name: str, numbers: dict[str, Tensor], tensor: Tensor) -> Tensor:
    """One tensor of the network's state, from the checkpoint where that has it. tensor: as it is when made."""
    _, layer, part, kind, *_ = (*name.split("."), "", "")
    number = len(POOLS) if layer == OUTPUT else int(layer.removeprefix("conv") or 0) - 1 if "conv" in layer else -1
    if part == "norm" and kind in NORM:
        return numbers[f"batch_normalization{f'_{number}' if number else ''}/{NORM[kind]}"]
    if part == "dense" and kind == "weight":  # rows are frames, then channels, of the last pool
        return numbers["dense/kernel"].reshape(LAST, CHANNELS, -1).permute(2, 1, 0)[..., None]
    if part == "dense":
        return numbers["dense/bias"]
    if part == "convolution" and kind == "weight":  # frames, bands, inputs, outputs
        return numbers[f"{number + 1}CNN/kernel"].permute(3, 2, 0, 1)
    return numbers[f"{number + 1}CNN/bias"] if part == "convolution" else tensor
