"""What a network that listens is: sounds in, logits out, and layers by name whose activations can be seen.

A layer's activations are those before its nonlinearity: a channel that never fires still has a slope there
(tensorflow/lucid, issue 68).
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from jobs.common.audio.mel import LogMel
from service.errors import InputError, UnknownNameError, nearest

OUTPUT = "output"
"""the name of the last layer of every network: its channels are the classes or tokens"""


class SoundNetwork(nn.Module):
    """Stages one after another, each a layer by the name of the stage; the first is the front end, the last OUTPUT.

    A child whose activations lie in another order overrides `frames_of`; one that is no chain, `activations`.
    """

    def __init__(self, rate: int, classes: Sequence[str], stages: Mapping[str, nn.Module], shortest: int) -> None:
        """rate: samples a second that it expects. classes: names of the channels of OUTPUT. shortest: sound that it
        can listen to, in samples.
        """
        super().__init__()
        self.rate, self.classes, self.shortest = rate, tuple(classes), shortest
        self.stages = nn.ModuleDict(stages)
        self.layers: tuple[str, ...] = tuple(stages)
        """by depth"""
        self.rectified: tuple[str, ...] = ()
        """layers whose activations a ReLU follows: a channel that is never above zero is dead there"""

    @property
    def front_end(self) -> str:
        """The name of the first layer: what it makes of a sound is what the others see."""
        return self.layers[0]

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, samples) in [-1, 1]. Returns logits (batch, classes), means over the frames of OUTPUT."""
        return self.activations(sounds, [OUTPUT])[OUTPUT].mean(2)

    def activations(self, inputs: Tensor, layers: Collection[str], after: str | None = None) -> dict[str, Tensor]:
        """What layers answer, each (batch, channels, frames), without computing more than they need.

        inputs: sounds (batch, samples); or, as its stage puts it out, what the layer `after` answers.
        """
        self.check_layers(layers)
        caught: dict[str, Tensor] = {}
        started = after is None
        batch = len(inputs)
        for name, stage in self.stages.items():
            if not started:
                started = name == after
                continue
            inputs = stage(inputs)
            if name in layers:
                caught[name] = self.frames_of(name, inputs, batch)
                if len(caught) == len(set(layers)):
                    break
        return caught

    def channels(self, inputs: Tensor, layer: str, numbers: Tensor, after: str | None = None) -> Tensor:
        """One channel of a layer for each row: (batch, frames). A child may compute no more than these.

        inputs, after: as of `activations`. numbers: int64 (batch,).
        """
        answers = self.activations(inputs, [layer], after)[layer]
        return answers[torch.arange(len(numbers), device=numbers.device), numbers]

    def along(self, inputs: Tensor, layer: str, directions: Tensor, after: str | None = None) -> Tensor:
        """A combination of the channels of a layer for each row: (batch, frames). A child may compute no more.

        inputs, after: as of `activations`. directions: (batch, channels), by what each channel is multiplied.
        """
        answers = self.activations(inputs, [layer], after)[layer]
        return torch.einsum("rct,rc->rt", answers, directions)

    def frames_of(self, layer: str, output: Tensor, batch: int) -> Tensor:
        """The output of a stage as (batch, channels, frames)."""
        return output

    def check_layers(self, layers: Collection[str]) -> None:
        """UnknownNameError, with all that there are, if a layer is not there."""
        for name in layers:
            if name not in self.layers:
                near = nearest(name, self.layers)
                raise UnknownNameError(
                    f"no layer {name!r}", f"{near + '; ' if near else ''}it has {', '.join(self.layers)}"
                )

    def check_length(self, samples: int) -> None:
        """InputError if a sound is too short to listen to."""
        if samples < self.shortest:
            least, given = self.shortest / self.rate, samples / self.rate
            raise InputError(f"a sound must last at least {least:.3g} seconds for this network; it lasts {given:.3g}")


def channels_of(network: SoundNetwork, samples: int, device: torch.device | None = None) -> dict[str, int]:
    """How many channels each layer has, in the order of depth. samples: of a sound to try. device: of the network."""
    with torch.no_grad():
        answers = network.activations(torch.zeros(1, samples, device=device), network.layers)
    return {name: answers[name].shape[1] for name in network.layers}


def log_mel_of(network: SoundNetwork) -> LogMel:
    """The network's front end if it is a log-mel spectrogram, else one with windows of 20 ms."""
    for front_end in list(network.stages.values())[:1]:
        if isinstance(front_end, LogMel):
            return front_end
    hop = network.rate // 100
    return LogMel(network.rate, 64, size=1 << (2 * hop - 1).bit_length(), window=2 * hop, hop=hop)
