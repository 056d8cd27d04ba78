"""Which frames of a layer see nothing but the sound: the others see what pads it, and can be excited by that alone."""

import math
from dataclasses import dataclass

import torch

from jobs.common.audio.networks.base import SoundNetwork
from service.errors import InputError

CPU = torch.device("cpu")
LEAST = 1 / 3  # of the frames that are left, in the middle, where a layer sees further than the sound is long


@dataclass(frozen=True)
class Inside:
    """The frames of a layer that count."""

    first: int
    last: int
    """after the last one"""
    field: int
    """samples that a frame in the middle sees"""
    whole: bool
    """whether each of them sees nothing but the sound"""

    @property
    def frames(self) -> slice:
        return slice(self.first, self.last)


def inside(network: SoundNetwork, layer: str, samples: int, device: torch.device = CPU) -> Inside:
    """The frames at least half a receptive field away from both ends of a sound, or else the middle third.

    The receptive field is measured: where the gradient of the middle frame is not zero. device: that of the network.
    InputError if there is no gradient, since then nothing can be optimised.
    """
    network.check_length(samples)
    sound = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    sound = sound.to(device).requires_grad_()
    activations = network.activations(sound, [layer])[layer]  # (1, channels, frames)
    if not activations.requires_grad:
        raise InputError(
            f"layer {layer!r} has no gradient with respect to the sound: the front end of the network and all after it "
            "must be written in torch, without detach or numpy"
        )
    frames = activations.shape[2]
    middle = activations[0, :, frames // 2]
    weights = torch.linspace(0.5, 1.5, len(middle), device=device)
    (gradient,) = torch.autograd.grad((middle * weights).sum(), sound)
    samples_seen = gradient[0].nonzero().flatten()
    if not len(samples_seen):
        raise InputError(f"the gradient of layer {layer!r} with respect to the sound is zero")
    field = int(samples_seen[-1] - samples_seen[0]) + 1
    margin = math.ceil(field / 2 / (samples / frames))
    least = max(1, round(LEAST * frames))
    if frames - 2 * margin >= least:
        return Inside(margin, frames - margin, field, whole=True)
    first = (frames - least) // 2
    return Inside(first, first + least, field, whole=False)
