"""A module of the user's own as a network that listens: its layers are its modules, by their names."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from service.errors import InputError, first_line

CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RNNBase, nn.TransformerEncoderLayer, nn.MultiheadAttention)
TRIED = 0.05  # standard deviation of the noise that a network is tried on
SECONDS = 1.0  # of it


class _Reached(Exception):
    """All layers that are asked for have answered."""


class WrappedNetwork(SoundNetwork):
    """A module that takes sounds (batch, samples).

    Its layers are those of its modules that return two rows for two sounds, in the order in which they answer, and
    `output`, what the module itself returns. Channels are axis 1; they are the last axis of linear layers, layer norms,
    recurrent and transformer layers, and of modules with an attribute `channels_last` that is true. What a layer has
    between channels and frames, such as bands, is averaged.
    """

    def __init__(self, network: nn.Module, rate: int, shortest: int = 1) -> None:
        """rate: samples a second that it expects. shortest: sound that it takes, in samples.

        InputError if it does not run on noise, or if none of its modules returns rows.
        """
        super().__init__(rate, (), {}, shortest)
        self.network = network
        self.layers = tuple(name or OUTPUT for name, _ in network.named_modules())
        samples = max(shortest, round(SECONDS * rate))
        noise = TRIED * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                answers = self._answers(noise, self.layers)
        except Exception as error:  # whatever a network of the user's own raises
            form = f"sounds (batch, samples) at {rate:,} samples a second"
            raise InputError(
                f"a network that listens must take {form}; on {(2, samples)} it fails: {first_line(error)}"
            ) from error
        self.layers = tuple(
            name for name, each in answers.items() if isinstance(each, Tensor) and each.ndim > 1 and len(each) == 2
        )
        if OUTPUT not in self.layers:
            raise InputError(f"a network that listens must return a row for each of {(2, samples)}; it does not")
        count = _frames(answers[OUTPUT], network).shape[1]
        self.classes = tuple(map(str, range(count)))

    def activations(self, inputs: Tensor, layers: Collection[str], after: str | None = None) -> dict[str, Tensor]:
        """As of all networks. InputError if `after` is a layer: a module can only be called with sounds."""
        self.check_layers(layers)
        if after is not None:
            raise InputError(f"a module of your own listens to sounds alone, not to what its layer {after!r} answers")
        answers = self._answers(inputs, layers)
        return {name: _frames(answers[name], self._module(name)) for name in layers}

    def _module(self, layer: str) -> nn.Module:
        return self.network if layer == OUTPUT else self.network.get_submodule(layer)

    def _answers(self, sounds: Tensor, layers: Collection[str]) -> dict[str, Any]:
        """What modules return, in the order in which they answer; of one that is called often, the first time."""
        answers: dict[str, Any] = {}

        def keep(name: str) -> RemovableHandle:
            def hook(module: nn.Module, inputs: object, answer: Any) -> None:
                answers.setdefault(name, answer[0] if isinstance(answer, tuple) and answer else answer)
                if len(answers) == len(set(layers)):
                    raise _Reached

            handle: RemovableHandle = self._module(name).register_forward_hook(hook)
            return handle

        hooks = [keep(name) for name in dict.fromkeys(layers)]
        try:
            self.network(sounds)
        except _Reached:
            pass
        finally:
            for each in hooks:
                each.remove()
        return answers


def _frames(answer: Tensor, module: nn.Module) -> Tensor:
    """(batch, channels, frames) of what a module returned."""
    if answer.ndim == 2:
        return answer[:, :, None]
    if isinstance(module, CHANNELS_LAST) or getattr(module, "channels_last", False):
        answer = answer.movedim(-1, 1)
    return answer if answer.ndim == 3 else answer.flatten(2, -2).mean(2)
