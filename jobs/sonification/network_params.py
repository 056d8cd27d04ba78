"""The network that is listened to: a recogniser that the run trains, or one that is there."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.audio.networks.pretrained import PRETRAINED
from jobs.common.audio.networks.recogniser import Recogniser
from jobs.common.audio.networks.wrapped import WrappedNetwork
from jobs.common.audio.transformations import TransformationParams
from jobs.common.data.sounds.base import SoundSet
from jobs.common.imports import name_of, resolve
from jobs.common.models.architectures import weights_from
from jobs.common.models.reference import ModelReference
from jobs.common.params import StudyParams
from jobs.common.training.engine import EngineParams
from jobs.common.training.optimizers import OptimizerParams
from service.errors import InputError


class RecogniserParams(StudyParams):
    """A small convolutional recogniser of words."""

    bands: int = Field(64, ge=8, le=256, description="of its log-mel spectrogram")
    channels: tuple[int, ...] = Field((64, 96, 96, 128, 128), min_length=1, description="of each convolution in time")
    kernels: tuple[int, ...] = Field((11, 11, 13, 13, 17), min_length=1, description="its length in frames; odd")
    strides: tuple[int, ...] = Field((1, 2, 1, 2, 1), min_length=1, description="its stride in frames")

    def arguments(self, clips: SoundSet) -> dict[str, Any]:
        """What the architecture is called with."""
        return {"classes": list(clips.classes), "rate": clips.rate, **self.model_dump(mode="json")}

    def build(self, clips: SoundSet, seed: int) -> Recogniser:
        """With fresh weights, drawn from the seed."""
        with weights_from(seed):
            return Recogniser(**self.arguments(clips))


class TrainingParams(StudyParams):
    """How the recogniser is trained."""

    epochs: int = Field(8, ge=1, le=100_000, description="times that each clip is heard")
    batch: int = Field(32, ge=1, le=100_000, description="clips in a minibatch")
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="adam", learning_rate=1e-3, weight_decay=1e-4),
        description="how the weights are moved; its ticks are epochs",
    )
    augmentation: TransformationParams = Field(
        TransformationParams(shift=0.05, speed=0.0), description="random changes of each minibatch"
    )
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it trains")
    report_every: int = Field(1, ge=1, description="epochs between two reports, each with a checkpoint")


class TrainedNetwork(StudyParams):
    """A recogniser that the run trains first, on the clips to train."""

    kind: Literal["train"] = Field("train", description="train it first")
    recogniser: RecogniserParams = Field(RecogniserParams(), description="the network")
    training: TrainingParams = Field(TrainingParams(), description="how it is trained")


class StoredNetwork(ModelReference):
    """A network of the model store, or one that a function of the user's own returns."""

    kind: Literal["model"] = Field("model", description="one that is there, by name or by import path")
    rate: int | None = Field(
        None,
        ge=1000,
        le=192_000,
        description="samples a second that a module of your own expects, which takes sounds (batch, samples); none: it "
        "is a SoundNetwork of jobs.common.audio.networks.base",
    )


class PretrainedNetwork(StudyParams):
    """A network that others have trained, rebuilt from the file of its package."""

    kind: Literal["pretrained"] = Field("pretrained", description="one that others have trained (`make data`)")
    name: Annotated[str, name_of(PRETRAINED, "network")] = Field(
        "moonshine_tiny",
        description="moonshine_tiny (the encoder of a recogniser of English), crepe_tiny (pitch), silero_vad (whether "
        "somebody speaks), musicnn_mtt_vgg (tags of music), or an import path mypackage.module:load, called without "
        "arguments, which returns a SoundNetwork",
    )

    def load(self) -> SoundNetwork:
        """InputError, with what to do, if its weights are not there."""
        return sound_network(resolve(self.name, PRETRAINED, "network")(), self.name)


NetworkParams = Annotated[TrainedNetwork | StoredNetwork | PretrainedNetwork, Field(discriminator="kind")]


def sound_network(network: nn.Module, name: str, rate: int | None = None) -> SoundNetwork:
    """In evaluation mode. rate: samples a second that a module expects which is none.

    InputError if a network does not listen.
    """
    if rate is not None and not isinstance(network, SoundNetwork):
        network = WrappedNetwork(network.eval(), rate)
    if not isinstance(network, SoundNetwork):
        raise InputError(
            f"model {name!r} must be a SoundNetwork of jobs.common.audio.networks.base; "
            f"it is a {type(network).__name__}",
            hint="network.rate makes one of any module that takes sounds (batch, samples)",
        )
    return network.eval().requires_grad_(False)


def labels_of(network: SoundNetwork, clips: SoundSet) -> Tensor | None:
    """The labels of clips as the network numbers its classes: int64 (n,); None if it does not know all of them."""
    if not set(clips.classes) <= set(network.classes):
        return None
    places = torch.tensor([network.classes.index(name) for name in clips.classes])
    return places[clips.labels]
