"""Victims: who learns from the poisoned set. A head on frozen features, a network tuned on, or a fresh one."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import ImageSet
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.params import StudyParams
from jobs.common.training.optimizers import OptimizerParams, device_of, set_rate
from jobs.poison_frogs.victims.heads import HeadParams
from service.errors import RunFailedError


class NetworkVictim(StudyParams):
    """All layers learn."""

    epochs: int = Field(10, ge=1, le=10_000, description="times that each image is seen")
    batch: int = Field(128, ge=1, le=100_000, description="images in a minibatch")
    augmentation: AugmentationParams = Field(AugmentationParams(), description="random changes of each minibatch")


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
    aims: Tensor
    """int64 (k,) their labels"""

    def __len__(self) -> int:
        return len(self.rows) + len(self.poisons)

    def batch(self, indices: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and labels; those of the set come first."""
        clean, poisoned = indices[indices < len(self.rows)], indices[indices >= len(self.rows)] - len(self.rows)
        images = torch.cat([self.images.images(self.rows[clean], stream), self.poisons[poisoned]])
        return images, torch.cat([self.images.labels[self.rows[clean]], self.aims[poisoned]])


def fit_network(
    network: nn.Module,
    data: PoisonedSet,
    params: FineTuneParams | ScratchParams,
    seed: int,
    watch: Callable[[nn.Module], None] = lambda network: None,
) -> nn.Module:
    """Train a copy of the network; it comes back in evaluation mode.

    watch: looks at it after each epoch, in evaluation mode. RunFailedError if the loss stops being finite.
    """
    network = copy.deepcopy(network)
    device = device_of(network)
    stream = torch.Generator().manual_seed(seed)
    hidden = _hidden(network) if isinstance(params, FineTuneParams) and params.hidden_l2 else []
    others = [each for each in network.parameters() if all(each is not one for one in hidden)]
    optimizer = params.optimizer.build([(1.0, others), (1.0, hidden)])
    if isinstance(params, FineTuneParams) and hidden:
        optimizer.param_groups[-1]["weight_decay"] = params.hidden_l2
    batches = _batches(len(data), params.batch, stream)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # for dropout
        for epoch in range(params.epochs):
            network.train().requires_grad_(True)
            set_rate(optimizer, params.optimizer.rate(epoch, params.epochs))
            total = 0.0
            for _ in range(math.ceil(len(data) / params.batch)):
                images, labels = data.batch(next(batches), stream)
                images = params.augmentation.apply(images, stream).to(device)
                loss = functional.cross_entropy(network(images), labels.to(device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                if params.optimizer.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), params.optimizer.clip)
                optimizer.step()
                total += loss.item()
            if not math.isfinite(total):
                raise RunFailedError(f"a victim's loss is not finite in epoch {epoch}")
            watch(network.eval())
    return network.requires_grad_(False)


def _batches(count: int, size: int, stream: torch.Generator) -> Iterator[Tensor]:
    """Minibatches without end, each epoch in an order of its own; the last of an epoch may be short."""
    while True:
        yield from torch.split(torch.randperm(count, generator=stream), size)


def _hidden(network: nn.Module) -> list[nn.Parameter]:
    """The weights of all linear layers but the last."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [layer.get_parameter("weight") for layer in layers[:-1]]
