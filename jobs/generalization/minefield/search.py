"""Networks trained together towards the objective, each from a start of its own, with all images at every update."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.ensemble import Ensemble
from jobs.common.training import loop
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.generalization.minefield.minefield_params import MinefieldParams
from jobs.generalization.minima.objective import reverse_cross_entropy
from service.run import reserved_device


@dataclass(frozen=True)
class Search:
    """What all cells share. images: float32 (n, ...) as the network takes them; labels: int64 (n,), the true ones."""

    network: nn.Module
    starts: Sequence[dict[str, Tensor]]
    images: Tensor
    labels: Tensor
    poison: Tensor
    poison_labels: Tensor
    params: MinefieldParams


class WholeSet:
    """All images at every update."""

    def __init__(self, *batch: Tensor) -> None:
        self._batch = batch

    def batch(self, index: int) -> Batch:
        return self._batch


class EnsembleStep(loop.Step):
    """An update of each network by the gradient of its own objective."""

    def __init__(self, engine: Engine, share: float) -> None:
        super().__init__(engine)
        self.share = share

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        images, labels, poison_labels = batch
        logits = self.engine(images)  # (networks, images, classes)
        losses = objective(logits, labels, poison_labels, self.share)
        self.engine.scaled(losses.sum()).backward()  # type: ignore[no-untyped-call]
        return {"loss": Term(losses.detach().double().sum(), len(losses))}


def objective(logits: Tensor, labels: Tensor, poison_labels: Tensor, share: float) -> Tensor:
    """Of each network: (networks,). logits: (networks, images, classes), those of the poison last."""
    count = len(labels)
    clean = logits[:, :count]
    likely = functional.cross_entropy(clean.flatten(0, 1), labels.repeat(len(clean)), reduction="none").view(
        len(clean), -1
    )
    poisoned = reverse_cross_entropy(logits[:, count:], poison_labels.expand(len(logits), -1))
    return (1 - share) * likely.mean(1) + share * poisoned.mean(1)


def trained_together(cell: list[int], search: Search) -> list[dict[str, Any]]:
    """A cell: the weights that starts first..last-1 end at, and the objective there."""
    first, last = cell
    device, params = reserved_device(), search.params
    ensemble = Ensemble(search.network, search.starts[first:last]).to(device)
    images = torch.cat([search.images, search.poison]).to(device)
    batch = (images, search.labels.to(device), search.poison_labels.to(device))
    step = EnsembleStep(Engine(ensemble, EngineParams(channels_last=False)), params.share)
    plan = loop.Plan(params.updates, params.optimizer, report_every=params.updates, seed=lambda update: None)
    loop.train(step, params.optimizer.build([(1.0, list(ensemble.parameters()))]), WholeSet(*batch), plan)
    with torch.no_grad():
        losses = objective(ensemble(images), batch[1], batch[2], params.share).tolist()
    return [{"weights": state, "loss": loss} for state, loss in zip(ensemble.states(), losses, strict=True)]
