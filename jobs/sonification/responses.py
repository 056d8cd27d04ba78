"""What layers answer to real clips: the units of activations, dead channels, the clips that excite most."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.mel import LogMel
from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.data.sounds.base import SoundSet
from jobs.common.passes import passes
from service.errors import RunFailedError
from service.run import Run, reserved_device

SLICE = 64  # clips in a cell
EVEN = 1e-6  # a standard deviation below it: the channel is constant


@dataclass(frozen=True)
class Responses:
    """Of one layer to all clips of a split."""

    layer: str
    means: Tensor
    """(clips, channels): over the frames of a clip"""
    maxima: Tensor
    """(clips, channels)"""
    mean: Tensor
    """(channels,): over all frames of all clips"""
    spread: Tensor
    """(channels,): their standard deviation; 1 where they are all the same"""
    dead: Tensor
    """bool (channels,): never above zero, where a ReLU would take the gradient; or constant"""

    @property
    def channels(self) -> int:
        return self.mean.shape[0]

    @property
    def standardised(self) -> Tensor:
        """`means` in standard deviations: (clips, channels)."""
        return (self.means - self.mean) / self.spread


def responses_of(network: SoundNetwork, clips: SoundSet, run: Run, name: str) -> dict[str, Responses]:
    """By layer, in the order of depth. name: of the cells. RunFailedError if one of them failed."""
    cells = [{"first": first, "last": min(first + SLICE, len(clips))} for first in range(0, len(clips), SLICE)]
    parts = run.map(answers, cells, shared=(network, clips), name=name)
    if any(each is None for each in parts):
        raise RunFailedError("the answers of the network to some clips failed, without which no channel has a unit")
    return {
        layer: _merged(network, layer, [part[layer] for some in parts for part in some]) for layer in network.layers
    }


def answers(cell: dict[str, int], shared: Any) -> list[dict[str, dict[str, Tensor]]]:
    """Sums over frames of every layer, of the clips of a cell, batch by batch."""
    network, clips = shared
    sounds = clips.sounds(torch.arange(cell["first"], cell["last"])).to(reserved_device())
    network = network.to(sounds.device)

    @torch.no_grad()
    def sums(rows: slice) -> dict[str, dict[str, Tensor]]:
        activations = network.activations(sounds[rows], network.layers)
        return {layer: _sums(each.cpu().double()) for layer, each in activations.items()}

    return list(passes(sums, len(sounds), network, sounds.shape[1:], purpose="responses", on_cpu=SLICE))


def _sums(activations: Tensor) -> dict[str, Tensor]:
    """activations: float64 (clips, channels, frames)."""
    return {
        "means": activations.mean(2).float(),
        "maxima": activations.amax(2).float(),
        "sums": activations.sum((0, 2)),
        "squares": activations.square().sum((0, 2)),
        "frames": torch.tensor(activations.shape[0] * activations.shape[2]),
    }


def _merged(network: SoundNetwork, layer: str, parts: list[dict[str, Tensor]]) -> Responses:
    frames = sum(int(part["frames"]) for part in parts)
    mean = torch.stack([part["sums"] for part in parts]).sum(0) / frames
    variance = torch.stack([part["squares"] for part in parts]).sum(0) / frames - mean.square()  # float64
    spread = variance.clamp(min=0).sqrt()
    maxima = torch.cat([part["maxima"] for part in parts])
    constant = spread < EVEN
    dead = constant.clone()
    if layer in network.rectified:
        dead |= maxima.amax(0) <= 0
    return Responses(
        layer=layer,
        means=torch.cat([part["means"] for part in parts]),
        maxima=maxima,
        mean=mean.float(),
        spread=torch.where(constant, 1.0, spread).float(),
        dead=dead,
    )


@dataclass(frozen=True)
class BandLevels:
    """Of the log-mels of the data: (bands,) each."""

    mean: Tensor
    spread: Tensor
    """their standard deviations"""


def mean_mels(mel: LogMel, clips: SoundSet, most: int = 256) -> BandLevels:
    """Over the frames of the first clips."""
    mels = mel(clips.sounds(torch.arange(min(most, len(clips)))))  # (clips, bands, frames)
    return BandLevels(mels.mean((0, 2)), mels.std((0, 2)).clamp(min=1e-6))
