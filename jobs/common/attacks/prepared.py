"""A model made ready for thousands of passes: layers folded and fused, channels last, weights without gradients."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.attacks.base import Model
from jobs.common.models import graph

TOLERANCE = 1e-4  # of the logits, by the largest


def prepared(model: Model, images: Tensor) -> Model:
    """A model that gives the same logits within float rounding, and gives them faster; else the model itself.

    model: in evaluation mode; a module is copied. images: (batch, channels, height, width), a few of those to come: a
    pass over them shows whether the logits stay the same.
    """
    if not isinstance(model, nn.Module):
        return model
    try:
        network = copy.deepcopy(model).requires_grad_(False)
    except RuntimeError:  # weights that are computed from others, as by weight normalisation, cannot be copied
        return model
    with torch.no_grad():
        before = model(images)
        traced = graph.trace(network)
        if traced is not None:
            network = traced
            graph.fold(traced)
            if images.device.type == "cpu" and images.dtype is torch.float32 and graph.can_fuse():
                graph.fuse(traced, images, still=True)
        ready = ChannelsLast(network) if images.shape[1] > 1 else network
        return ready.eval() if _near(ready(images), before) else model


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
