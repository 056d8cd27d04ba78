"""The loop: weight updates of one or more passes each, validation, checkpoints.

Source: Shah et al. 2018 and the code released with it (train_seg.py): the head learns ten times as fast as the
backbone and the biases of its convolutions twenty times; the learning rate follows a cosine over all updates.
"""

import math
import time
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.metrics.segmentation import scores
from jobs.common.params import StudyParams
from jobs.common.training import parallel
from jobs.common.training.optimizers import CosineDecay, OptimizerParams, device_of, moments, restore_moments, set_rate
from jobs.common.training.precision import Precision, PrecisionName, check_precision
from jobs.stacked_unets.data import TrainingData
from jobs.stacked_unets.evaluation import evaluate
from jobs.stacked_unets.network_params import backbone_prefix
from jobs.stacked_unets.objective import pixel_loss
from jobs.stacked_unets.prediction import PredictionParams
from service.errors import InputError, RunFailedError
from service.run import Run


class BatchNormParams(StudyParams):
    """What happens to the batch norms of the backbone; those of the head are always trained."""

    policy: Literal["train", "freeze"] = Field(
        "train", description="freeze: they use and keep the statistics, scales and shifts that they began with"
    )
    momentum: float | None = Field(
        None, gt=0, le=1, description="weight of a batch in the running statistics; none: as the network has it"
    )


class TrainingParams(StudyParams):
    """How the weights are moved, and how training is watched."""

    updates: int = Field(500, ge=1, le=100_000_000, description="weight updates")
    batch: int = Field(8, ge=1, le=100_000, description="images in a pass, over all workers")
    accumulate: int = Field(1, ge=1, le=10_000, description="passes whose gradients are averaged for one update")
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="sgd", learning_rate=2e-4, momentum=0.95, weight_decay=1e-4, decay=CosineDecay()),
        description="how the weights are moved; its ticks are updates",
    )
    head_rate: float = Field(10.0, ge=0, le=1000, description="learning rate of the head, in units of the backbone's")
    head_bias_rate: float = Field(
        20.0, ge=0, le=1000, description="that of the biases of its convolutions, in units of the backbone's"
    )
    batch_norm: BatchNormParams = Field(BatchNormParams(), description="the batch norms of the backbone")
    easy_above: float | None = Field(
        None, gt=0, lt=1, description="pixels do not count whose true class has a higher probability; none: all do"
    )
    augmentation: JointAugmentationParams = Field(JointAugmentationParams(), description="random changes of each image")
    precision: PrecisionName = Field(
        "float32", description="of the network while it trains: bfloat16 or float16 (with a scaled loss) need a GPU"
    )
    report_every: int = Field(100, ge=1, description="weight updates between two validations, each with a checkpoint")
    held_out: int = Field(50, ge=1, description="training images that are kept for validation")
    keep: Literal["last", "best"] = Field("last", description="weights to keep: the last, or the best in validation")


def train(network: nn.Module, data: TrainingData, params: TrainingParams, run: Run) -> None:
    """Train a network in place. Goes on from the run's checkpoint if there is one, to the same weights bit for bit.

    With several ranks each has its rows of every batch; the weights are those of one process up to rounding.
    Logs what job.py says of training. RunFailedError if the loss stops being finite. InputError: half precision
    without a GPU, or a batch too small for batch norm.
    """
    device = device_of(network)
    check_precision(params.precision, device)
    run.expect(params.updates)
    training = _Training(network, data, params, run)
    training.restore()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while training.done < params.updates:
            training.update()
            if training.done % params.report_every == 0 or training.done == params.updates:
                training.report()
    if training.best:
        network.load_state_dict(training.best)
    network.requires_grad_().eval()


class _Training:
    """All that changes while a network is trained."""

    def __init__(self, network: nn.Module, data: TrainingData, params: TrainingParams, run: Run) -> None:
        self.data, self.params, self.run = data, params, run
        self.device = device_of(network)
        self.network = parallel.convert_batch_norm(network)
        self.frozen = prepare_batch_norms(self.network, params.batch_norm)
        self.optimizer = params.optimizer.build(parameter_groups(self.network, params))
        self.precision = Precision(params.precision, self.device)
        self.done, self.seconds = 0, 0.0
        self.best_iou = -1.0
        self.best: dict[str, torch.Tensor] = {}
        self.loss_sum, self.updates = 0.0, 0  # since the last report
        self.train_mode()

    def train_mode(self) -> None:
        self.network.train()
        for norm in self.frozen:
            norm.eval()

    def restore(self) -> None:
        """Go on from the run's checkpoint, if there is one."""
        if (saved := self.run.restore()) is None:
            return
        self.done, self.seconds = saved["update"], saved["seconds"]
        self.best_iou, self.best = saved["best_iou"], saved["best"]
        self.network.load_state_dict(saved["network"])
        restore_moments(self.optimizer, saved["moments"])
        self.precision.scaler.load_state_dict(saved["scaler"])

    def update(self) -> None:
        """Move the weights once."""
        began = time.perf_counter()
        params = self.params
        torch.manual_seed(self.run.seed_for("dropout", self.done, parallel.rank()))
        set_rate(self.optimizer, params.optimizer.rate(self.done, params.updates))
        self.optimizer.zero_grad()
        loss = 0.0
        for part in range(params.accumulate):
            loss += self.backward(self.done * params.accumulate + part)
        parallel.sum_gradients(self.network.parameters())
        self.precision.step(self.optimizer, self.network, params.optimizer.clip)
        self.loss_sum, self.updates = self.loss_sum + loss, self.updates + 1
        if not math.isfinite(self.loss_sum):
            raise RunFailedError(
                f"the training loss is {loss} at update {self.done}",
                hint="a lower learning_rate, a clip or a warm_up keeps it finite",
            )
        self.done += 1
        self.seconds += time.perf_counter() - began

    def backward(self, index: int) -> float:
        """Add the gradient of a batch. Returns this rank's part of the loss of the update."""
        images, labels = (each.to(self.device) for each in self.data.batch(index))
        try:
            with self.precision.autocast():
                logits = self.network(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"batch: {self.params.batch} image of {images.shape[3]}x{images.shape[2]} leaves a batch norm one "
                "value for each channel, which has no variance",
                "two images or larger ones do, and so does batch_norm.policy freeze where it is in the backbone",
            ) from error
        loss = pixel_loss(logits, labels, self.params.easy_above) / self.params.accumulate
        self.precision.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def report(self) -> None:
        """Validate, log, checkpoint."""
        self.network.eval()
        found = scores(evaluate(self.network, self.data.held_out, PredictionParams()))
        self.train_mode()
        # nothing that counts is held out: there is no best
        if self.params.keep == "best" and found.mean_iou > self.best_iou:
            self.best_iou = found.mean_iou
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}
        loss = float(parallel.total(torch.tensor(self.loss_sum, dtype=torch.float64))) / self.updates
        validated = {f"val_{name}": value for name, value in found.metrics().items()}
        self.run.log(step=self.done, train_loss=loss, **validated, train_seconds=self.seconds)
        state = {
            "update": self.done,
            "seconds": self.seconds,
            "best_iou": self.best_iou,
            "best": self.best,
            "network": self.network.state_dict(),
            "moments": moments(self.optimizer),
            "scaler": self.precision.scaler.state_dict(),
        }
        self.run.checkpoint(state)
        self.loss_sum, self.updates = 0.0, 0


def parameter_groups(network: nn.Module, params: TrainingParams) -> list[tuple[float, list[nn.Parameter]]]:
    """What the learning rate is multiplied with, and the weights that it is for: backbone, head, biases of the head."""
    prefix = backbone_prefix(network)
    biases = {
        f"{name}.bias" for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    }
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            head = params.head_bias_rate if name in biases else params.head_rate
            groups.setdefault(1.0 if name.startswith(prefix) else head, []).append(parameter)
    return list(groups.items())


def prepare_batch_norms(network: nn.Module, params: BatchNormParams) -> list[nn.Module]:
    """Apply the policy to the batch norms of the backbone. Returns those that stay in evaluation mode."""
    prefix = backbone_prefix(network)
    norms: list[Any] = [
        layer for name, layer in network.named_modules() if isinstance(layer, _BatchNorm) and name.startswith(prefix)
    ]
    for norm in norms:
        if params.momentum is not None:
            norm.momentum = params.momentum
        if params.policy == "freeze":
            norm.requires_grad_(False)
    return norms if params.policy == "freeze" else []
