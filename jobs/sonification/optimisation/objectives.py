"""What a sound is to excite: a neuron, a channel, a direction, a whole layer, or a class.

Activations are in standard deviations of their channel over the frames of the data, so that channels can be compared.

Sources: Olah et al. 2017, "Feature Visualization"; the feature maps of Ghiasi et al. 2021 are `channel`.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.audio.networks.base import OUTPUT
from jobs.common.params import StudyParams


class Objective(StudyParams):
    """A number for each sound that is to be as large as possible."""

    unit: ClassVar[str] = "standard deviations over real clips"

    @abstractmethod
    def scores(self, activations: Tensor, features: Tensor) -> Tensor:
        """activations: (rows, channels, frames). features: int64 (rows,), the one that each row is for.

        Returns (rows,).
        """

    def fits(self, layer: str) -> bool:
        """Whether it can be asked of a layer."""
        return True


class OwnObjective(Objective):
    """Of one channel or direction, whatever the others do: they need not be computed."""

    @abstractmethod
    def of_own(self, own: Tensor) -> Tensor:
        """own: the channel or direction that each row is for, (rows, frames). Returns (rows,)."""

    def scores(self, activations: Tensor, features: Tensor) -> Tensor:
        return self.of_own(activations[torch.arange(len(features)), features])


class ChannelObjective(OwnObjective):
    """One channel, at all times."""

    kind: Literal["channel"] = Field("channel", description="a channel's mean over time")
    top: float = Field(1.0, gt=0, le=1, description="share of the frames, the largest ones, that count")

    def of_own(self, own: Tensor) -> Tensor:
        count = max(1, round(self.top * own.shape[1]))
        return own.mean(1) if count == own.shape[1] else own.topk(count, 1).values.mean(1)


class NeuronObjective(OwnObjective):
    """One channel at one time."""

    kind: Literal["neuron"] = Field("neuron", description="a channel in the middle frame")

    def of_own(self, own: Tensor) -> Tensor:
        return own[:, own.shape[1] // 2]


class DirectionObjective(OwnObjective):
    """A direction in the space of the channels: from the mean of all clips to that of a class, of length 1."""

    kind: Literal["direction"] = Field("direction", description="the direction of a class in the space of channels")

    def of_own(self, own: Tensor) -> Tensor:
        return own.mean(1)


class LayerObjective(Objective):
    """All channels: their mean square (DeepDream, Mordvintsev et al. 2015)."""

    unit = "variances over real clips"
    kind: Literal["layer"] = Field("layer", description="the mean square of all channels")

    def scores(self, activations: Tensor, features: Tensor) -> Tensor:
        return activations.square().mean((1, 2))


class ClassObjective(Objective):
    """A class or token: the logarithm of its probability, at all times."""

    unit = "log-probability"
    kind: Literal["class"] = Field("class", description="a class or token: its log-probability")

    def scores(self, activations: Tensor, features: Tensor) -> Tensor:
        """activations: logits (rows, classes, frames)."""
        return activations.log_softmax(1)[torch.arange(len(features)), features].mean(1)

    def fits(self, layer: str) -> bool:
        return layer == OUTPUT


AnyObjective = Annotated[
    ChannelObjective | NeuronObjective | DirectionObjective | LayerObjective | ClassObjective,
    Field(discriminator="kind"),
]


def mean_cosine(activations: Tensor, copies: int) -> Tensor:
    """How alike the sounds for one feature are: the mean cosine between the Gram matrices of their activations.

    activations: (features * copies, channels, frames), the copies of a feature next to each other; at least 2 copies.
    Returns (features,). Source: Olah et al. 2017, "Diversity"; Gram matrices of Gatys et al. 2016.
    """
    grams = torch.einsum("rct,rdt->rcd", activations, activations).flatten(1)  # (rows, channels^2)
    unit = torch.nn.functional.normalize(grams, dim=1).view(-1, copies, grams.shape[1])  # (features, copies, …)
    cosines = unit @ unit.transpose(1, 2)  # (features, copies, copies)
    pairs: Tensor = (cosines.sum((1, 2)) - copies) / (copies * (copies - 1))
    return pairs
