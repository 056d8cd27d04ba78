"""A model made ready for thousands of passes: batch norms folded into convolutions, weights without gradients."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from jobs.common.attacks.base import Model

TOLERANCE = 1e-4  # of the logits, by the largest


def prepared(model: Model, images: Tensor) -> Model:
    """A model that gives the same logits within float rounding, and gives them faster; else the model itself.

    model: in evaluation mode; a module is copied. images: (batch, channels, height, width), a few of those to come: a
    pass over them shows which batch norm follows which convolution, and one for each that the logits stay the same.
    """
    if not isinstance(model, nn.Module):
        return model
    try:
        network = copy.deepcopy(model).requires_grad_(False)
    except RuntimeError:  # weights that are computed from others, as by weight normalisation, cannot be copied
        return model
    with torch.no_grad():
        before = model(images)
        for (place, convolution), (next_place, norm) in _pairs(network, images):
            _replace(network, place, fuse_conv_bn_eval(convolution, norm))
            _replace(network, next_place, nn.Identity())
            if not _near(network(images), before):  # something else takes what the convolution gives
                _replace(network, place, convolution)
                _replace(network, next_place, norm)
        ready = ChannelsLast(network) if images.shape[1] > 1 else network
        ready.train(model.training)  # its new parts begin in training mode
        return ready if _near(ready(images), before) else model


def _near(logits: Tensor, before: Tensor) -> bool:
    return bool((logits - before).abs().amax() <= TOLERANCE * before.abs().amax())


class ChannelsLast(nn.Module):
    """A network whose convolutions find the channels of a pixel side by side, behind images in the usual layout."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(_Layout.apply(images))
        return logits


class _Layout(torch.autograd.Function):
    """Channels last on the way in; on the way back, gradients in the usual layout."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[tuple[str, nn.Conv2d], tuple[str, nn.BatchNorm2d]]]:
    """Each convolution and the batch norm that takes its output, with their places, of those that are called once."""
    given: dict[str, Tensor] = {}
    taken: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def note(place: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[place] += 1
            given[place], taken[place] = output, inputs[0]

        return hook

    parts = [each for each in network.named_modules() if isinstance(each[1], nn.Conv2d | nn.BatchNorm2d)]
    handles = [part.register_forward_hook(note(place)) for place, part in parts]
    network(images)
    for handle in handles:
        handle.remove()
    once = [(place, part) for place, part in parts if calls[place] == 1]
    convolutions = [(place, part) for place, part in once if isinstance(part, nn.Conv2d)]
    norms = [(place, part) for place, part in once if isinstance(part, nn.BatchNorm2d)]
    return [(first, then) for then in norms for first in convolutions if given[first[0]] is taken[then[0]]]


def _replace(network: nn.Module, place: str, part: nn.Module) -> None:
    parent, _, attribute = place.rpartition(".")
    setattr(network.get_submodule(parent), attribute, part)
