"""Plain training of classifiers: minibatches of a fixed set, the cross entropy, epochs. Weights can be kept on the way.

Which images a batch holds and how they are changed depends on the run's seed, the network's name and the epoch alone,
so a killed training goes on to the same weights bit for bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.batches import Epochs
from jobs.common.data.images.base import ImageSet
from jobs.common.params import StudyParams
from jobs.common.training.optimizers import OptimizerParams, device_of, moments, restore_moments, set_rate
from service.errors import InputError, RunFailedError
from service.run import Run

MOST_KEPT = 2 << 30  # bytes of weights kept along the way: they are part of every checkpoint


class SupervisedParams(StudyParams):
    """How a classifier is trained. The default is the recipe of Li et al. 2018 but for its number of epochs."""

    epochs: int = Field(30, ge=1, le=100_000, description="times that each image is seen")
    batch: int = Field(128, ge=1, le=100_000, description="images in a minibatch")
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="sgd", learning_rate=0.1, nesterov=True, weight_decay=5e-4),
        description="how the weights are moved; its ticks are epochs",
    )
    augmentation: AugmentationParams = Field(AugmentationParams(), description="random changes of each minibatch")
    keep_every: int | None = Field(
        None, ge=1, description="epochs between two states of the network that are kept, besides the first; none: none"
    )
    report_every: int = Field(1, ge=1, description="epochs between two reports, each with a checkpoint")


@dataclass
class Training:
    """A network to be trained, in place. name: sets it apart in seeds and metrics, "" if it is the only one."""

    name: str
    network: nn.Module
    images: ImageSet
    params: SupervisedParams
    kept: list[dict[str, Tensor]] = field(default_factory=list)
    """states of the network along the way, on the CPU: the first, every keep_every epochs, the last"""
    kept_at: list[int] = field(default_factory=list)
    """the epochs after which they were kept"""


def train(trainings: Sequence[Training], run: Run) -> None:
    """Train networks one after another. Goes on from the run's checkpoint if there is one.

    Logs train_loss and train_accuracy (a share) over the images as they were learnt from, after the name of the
    network. RunFailedError if the loss stops being finite. InputError if a set does not fill one batch, or if all that
    is to be kept is too large.
    """
    run.expect(sum(each.params.epochs for each in trainings))
    for each in trainings:
        _check_kept(each)
    saved = run.restore() or {"finished": [], "current": None}
    finished: list[dict[str, Any]] = saved["finished"]
    offset = 0
    for index, training in enumerate(trainings):
        if index < len(finished):
            _load(training, finished[index])
        else:
            _train(training, finished, saved["current"] if index == len(saved["finished"]) else None, offset, run)
            finished = [*finished, _state(training)]
        offset += training.params.epochs
        training.network.eval()


def _train(
    training: Training, finished: list[dict[str, Any]], current: dict[str, Any] | None, offset: int, run: Run
) -> None:
    """Train one network, from the state of a checkpoint if there is one."""
    network, images, params, name = training.network, training.images, training.params, training.name
    device = device_of(network)
    epochs = Epochs(len(images), params.batch, lambda epoch: run.seed_for("order", name, epoch))
    optimizer = params.optimizer.build([(1.0, list(network.parameters()))])
    start = 0
    if current is not None:
        start = current["epoch"]
        _load(training, current)
        restore_moments(optimizer, current["moments"])
    elif params.keep_every is not None:
        _keep(training, 0)
    network.train()
    loss_sum, right, seen = 0.0, 0, 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in range(start, params.epochs):
            set_rate(optimizer, params.optimizer.rate(epoch, params.epochs))
            torch.manual_seed(run.seed_for("dropout", name, epoch))
            stream = torch.Generator().manual_seed(run.seed_for("augmentation", name, epoch))
            for step in range(epochs.steps):
                chosen = epochs.indices(epoch * epochs.steps + step)
                batch = params.augmentation.apply(images.images(chosen, stream), stream).to(device)
                labels = images.labels[chosen].to(device)
                logits = network(batch)
                loss = functional.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                if params.optimizer.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), params.optimizer.clip)
                optimizer.step()
                loss_sum += loss.item() * len(labels)
                right += int((logits.argmax(1) == labels).sum())
                seen += len(labels)
            if not math.isfinite(loss_sum):
                raise RunFailedError(
                    f"the training loss is not finite in epoch {epoch}",
                    hint="a lower learning_rate, a clip or a warm_up keeps it finite",
                )
            done = epoch + 1
            last = done == params.epochs
            if params.keep_every is not None and (done % params.keep_every == 0 or last):
                _keep(training, done)
            if done % params.report_every == 0 or last:
                metrics = {f"{name}train_loss": loss_sum / seen, f"{name}train_accuracy": right / seen}
                run.log(step=offset + done, **metrics)
                now = {"epoch": done, "moments": moments(optimizer), **_state(training)}
                run.checkpoint({"finished": finished, "current": now})
                loss_sum, right, seen = 0.0, 0, 0


def _keep(training: Training, epoch: int) -> None:
    training.kept.append({key: tensor.detach().cpu().clone() for key, tensor in training.network.state_dict().items()})
    training.kept_at.append(epoch)


def _state(training: Training) -> dict[str, Any]:
    return {"network": training.network.state_dict(), "kept": training.kept, "kept_at": training.kept_at}


def _load(training: Training, state: dict[str, Any]) -> None:
    training.network.load_state_dict(state["network"])
    training.kept, training.kept_at = list(state["kept"]), list(state["kept_at"])


def _check_kept(training: Training) -> None:
    every = training.params.keep_every
    if every is None:
        return
    each = sum(tensor.numel() * tensor.element_size() for tensor in training.network.state_dict().values())
    if (total := each * (2 + training.params.epochs // every)) > MOST_KEPT:
        raise InputError(
            f"keep_every: {every} keeps {total / 2**30:.1f} GB of weights, {MOST_KEPT / 2**30:.0f} are allowed",
            hint="keep the weights of fewer epochs",
        )
