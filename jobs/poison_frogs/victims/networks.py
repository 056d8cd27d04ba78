"""Victims: who learns from the poisoned set. A head on frozen features, a network tuned on, or a fresh one."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import ImageSet
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.params import StudyParams
from jobs.common.training import loop
from jobs.common.training.engine import Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams, device_of
from jobs.common.training.supervised import ClassifierStep
from jobs.poison_frogs.victims.heads import HeadParams
from service.errors import FieldError


class NetworkVictim(StudyParams):
    """All layers learn."""

    epochs: int = Field(10, ge=1, le=10_000, description="times that each image is seen")
    batch: int = Field(128, ge=1, le=100_000, description="images in a minibatch")
    augmentation: AugmentationParams = Field(AugmentationParams(), description="random changes of each minibatch")
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it trains")


class FineTuneParams(NetworkVictim):
    """Training goes on from the attacked network, in all layers: the paper's end-to-end setting."""

    kind: Literal["fine_tune"] = Field("fine_tune", description="all layers go on from the attacked network")
    optimizer: OptimizerParams = Field(
        OptimizerParams(learning_rate=1.85e-5, weight_decay=0.0), description="how the weights move; ticks are epochs"
    )
    hidden_l2: float = Field(
        0.0,
        ge=0,
        le=10,
        description="penalty l2/2 ‖W‖² on all linear layers but the last, for Adam; the code has 0.004",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_l2 and self.optimizer.kind == "lbfgs":
            raise FieldError("hidden_l2", "be 0 for lbfgs, which has one rule for all weights", self.hidden_l2)
        return self


class ScratchParams(NetworkVictim):
    """A network with fresh weights, of the attacked architecture or of another."""

    kind: Literal["scratch"] = Field("scratch", description="fresh weights")
    classifier: ClassifierParams | None = Field(None, description="another architecture; none: the attacked one")
    optimizer: OptimizerParams = Field(OptimizerParams(), description="how the weights are moved; its ticks are epochs")


VictimParams = Annotated[HeadParams | FineTuneParams | ScratchParams, Field(discriminator="kind")]


@dataclass(frozen=True)
class PoisonedSet:
    """What a victim learns from: images of a set, and poisons after them."""

    images: ImageSet
    rows: Tensor
    """int64 (n,): which images of the set"""
    poisons: Tensor
    """float32 (k, channels, height, width)"""
    labels: Tensor
    """int64 (k,), of the poisons"""

    def __len__(self) -> int:
        return len(self.rows) + len(self.poisons)

    def batch(self, indices: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and labels; those of the set come first."""
        clean, poisoned = indices[indices < len(self.rows)], indices[indices >= len(self.rows)] - len(self.rows)
        images = torch.cat([self.images.images(self.rows[clean], stream), self.poisons[poisoned]])
        return images, torch.cat([self.images.labels[self.rows[clean]], self.labels[poisoned]])


class PoisonedBatches:
    """A poisoned set, gone through again and again by a single stream of draws. Batches have to be asked for in order.

    Each epoch has an order of its own; its last batch may be short.
    """

    def __init__(self, data: PoisonedSet, params: NetworkVictim, seed: int) -> None:
        self._data, self._params = data, params
        self._stream = torch.Generator().manual_seed(seed)
        self._order: Iterator[Tensor] = iter(())
        self.epoch = math.ceil(len(data) / params.batch)
        """batches in an epoch"""

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Images (n, channels, height, width) in [0, 1] and labels int64 (n,)."""
        if index % self.epoch == 0:
            order = torch.randperm(len(self._data), generator=self._stream)
            self._order = iter(torch.split(order, self._params.batch))
        images, labels = self._data.batch(next(self._order), self._stream)
        return self._params.augmentation.apply(images, self._stream), labels


class VictimStep(ClassifierStep):
    """An update of all layers; somebody looks at the network after each epoch."""

    def __init__(self, engine: Engine, watch: Callable[[nn.Module], None]) -> None:
        super().__init__(engine)
        self._watch = watch

    def train_mode(self) -> None:
        self.engine.network.train().requires_grad_(True)

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        self._watch(self.engine.network)
        return {}


def fit_network(
    network: nn.Module,
    data: PoisonedSet,
    params: FineTuneParams | ScratchParams,
    seed: int,
    watch: Callable[[nn.Module], None] = lambda network: None,
) -> nn.Module:
    """Train a copy of the network; it comes back in evaluation mode.

    watch: looks at it after each epoch, in evaluation mode. RunFailedError if the loss stops being finite. FieldError:
    half precision without a GPU.
    """
    network = copy.deepcopy(network)
    params.engine.check(device_of(network))
    batches = PoisonedBatches(data, params, seed)
    plan = loop.Plan(
        updates=params.epochs * batches.epoch,
        rates=params.optimizer,
        report_every=batches.epoch,
        seed=lambda update: None if update else seed,
        updates_per_tick=batches.epoch,
    )
    step = VictimStep(Engine(network, params.engine), watch)
    loop.train(step, _optimizer(network, params), batches, plan)
    return network.requires_grad_(False)


def _optimizer(network: nn.Module, params: FineTuneParams | ScratchParams) -> torch.optim.Optimizer:
    """Of all weights, with the penalty on those of hidden linear layers."""
    hidden = _hidden(network) if isinstance(params, FineTuneParams) and params.hidden_l2 else []
    others = [each for each in network.parameters() if all(each is not one for one in hidden)]
    optimizer = params.optimizer.build([(1.0, others), (1.0, hidden)])
    if isinstance(params, FineTuneParams) and hidden:
        optimizer.param_groups[-1]["weight_decay"] = params.hidden_l2
    return optimizer


def _hidden(network: nn.Module) -> list[nn.Parameter]:
    """The weights of all linear layers but the last."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [layer.get_parameter("weight") for layer in layers[:-1]]
