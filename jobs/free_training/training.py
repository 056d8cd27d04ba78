"""The loop around all methods: minibatches, weight updates, validation under attack, checkpoints.

What is counted is weight updates, and so is the schedule of the learning rate: a method that replays minibatches makes
as many updates as the others from fewer of them (Shafahi et al. 2019, section 4 and code).
"""

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.attacks.ball import Ball
from jobs.common.attacks.pgd import PGD
from jobs.common.data.augmentation import AugmentationParams
from jobs.common.params import StudyParams
from jobs.common.training import parallel
from jobs.common.training.optimizers import OptimizerParams, device_of, moments, restore_moments, set_rate
from jobs.common.training.precision import Precision, PrecisionName, check_precision
from jobs.free_training.accuracy import attacked, correct
from jobs.free_training.data import TrainingData
from jobs.free_training.methods.base import Method
from jobs.free_training.objective import Objective
from jobs.free_training.overfitting import Snapshot
from service.errors import InputError, RunFailedError
from service.run import Run


class TrainingParams(StudyParams):
    """How the weights are moved, whatever the method, and how training is watched."""

    updates: int = Field(2000, ge=1, le=100_000_000, description="weight updates, whatever the method")
    batch: int = Field(64, ge=1, le=100_000, description="images in a minibatch, over all workers")
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="sgd", learning_rate=0.1), description="how the weights are moved; its ticks are updates"
    )
    decay_all: bool = Field(
        True, description="weight decay of all parameters; false: not of biases and of batch norm, which are vectors"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")
    augmentation: AugmentationParams = Field(AugmentationParams(), description="random changes of each minibatch")
    precision: PrecisionName = Field(
        "float32", description="of the network while it trains: bfloat16 or float16 (with a scaled loss) need a GPU"
    )
    report_every: int = Field(500, ge=1, description="weight updates between two validations, each with a checkpoint")
    held_out: int = Field(100, ge=1, description="training images that are kept for validation")
    validation: PGD = Field(PGD(steps=10, step_size=0.25), description="the attack on the images held out")
    validation_batch: int = Field(100, ge=1, le=100_000, description="images attacked at once in validation")
    keep: Literal["last", "best"] = Field(
        "last", description="weights to keep: the last, or those of the best robust (natural: clean) validation"
    )


@dataclass
class Sums:
    """Loss and accuracy on the points that the weights learnt from, since the last report; this rank's part."""

    loss: float = 0.0
    right: int = 0
    updates: int = 0

    def add(self, loss: float, right: Tensor) -> None:
        self.loss += loss
        self.right += int(right.sum())
        self.updates += 1

    def means(self, batch: int) -> dict[str, float]:
        """Over all ranks. batch: images in a global batch."""
        loss, right = parallel.total(torch.tensor([self.loss, self.right], dtype=torch.float64)).tolist()
        return {"train_loss": loss / self.updates, "train_accuracy": right / (self.updates * batch)}


def train(network: nn.Module, data: TrainingData, method: Method, ball: Ball, params: TrainingParams, run: Run) -> None:
    """Train a network in place. Goes on from the run's checkpoint if there is one, to the same weights bit for bit.

    With several ranks each has its rows of every batch; the weights are those of one process up to rounding.
    Logs what job.py says of training. RunFailedError if the loss stops being finite. InputError: half precision
    without a GPU, or a checkpoint of another batch.
    """
    device = device_of(network)
    check_precision(params.precision, device)
    run.expect(params.updates)
    training = _Training(network, data, method, ball, params, run)
    training.restore()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while training.done < params.updates and not training.collapsed:
            training.update()
            training.watch()
            if training.done % params.report_every == 0 or training.done == params.updates or training.collapsed:
                training.report()
    if training.best.weights:
        network.load_state_dict(training.best.weights)
    network.eval()


class _Training:
    """All that changes while a network is trained."""

    def __init__(
        self, network: nn.Module, data: TrainingData, method: Method, ball: Ball, params: TrainingParams, run: Run
    ) -> None:
        self.data, self.method, self.ball, self.params, self.run = data, method, ball, params, run
        self.device = device_of(network)
        self.network = parallel.convert_batch_norm(network).train()
        self.precision = Precision(params.precision, self.device)
        self.objective = Objective(self.network, params.batch, self.precision, params.label_smoothing)
        self.optimizer = build_optimizer(self.network, params)
        self.minibatch, self.whole, self.labels = 0, *data.batch(0)  # of all ranks
        self.delta = torch.zeros_like(parallel.share(self.whole), device=self.device)  # of this rank's rows
        self.done, self.seconds, self.collapsed = 0, 0.0, False
        self.best, self.healthy = Snapshot(), Snapshot()
        self.sums = Sums()

    def restore(self) -> None:
        """Go on from the run's checkpoint, if there is one."""
        if (saved := self.run.restore()) is None:
            return
        self.done, self.seconds, self.collapsed = saved["update"], saved["seconds"], saved["collapsed"]
        self.best, self.healthy = Snapshot(**saved["best"]), Snapshot(**saved["healthy"])
        self.objective.evaluations = saved["evaluations"]
        self.network.load_state_dict(saved["network"])
        restore_moments(self.optimizer, saved["moments"])
        self.precision.scaler.load_state_dict(saved["scaler"])
        if "delta" in saved:  # else from none, as at the start
            self.delta = restored_delta(saved["delta"], self.whole).to(self.device)

    def update(self) -> None:
        """Move the weights once."""
        began = time.perf_counter()
        minibatch, replay = divmod(self.done, self.method.replays)
        if minibatch != self.minibatch:
            self.minibatch, self.whole, self.labels = minibatch, *self.data.batch(minibatch)
        if replay == 0:
            stream = torch.Generator().manual_seed(self.run.seed_for("noise", minibatch))
            if (fresh := self.method.fresh(self.whole, self.ball, stream)) is not None:
                self.delta = parallel.share(fresh).to(self.device)
        images, labels = (parallel.share(each).to(self.device) for each in (self.whole, self.labels))

        torch.manual_seed(self.run.seed_for("dropout", self.done, parallel.rank()))
        set_rate(self.optimizer, self.params.optimizer.rate(self.done, self.params.updates))
        self.optimizer.zero_grad()
        loss, logits, self.delta = self.method.update(self.objective, images, labels, self.delta, self.ball)
        parallel.sum_gradients(self.network.parameters())
        self.precision.step(self.optimizer, self.network, self.params.optimizer.clip)
        self.sums.add(loss.item(), logits.argmax(1) == labels)
        if not math.isfinite(self.sums.loss):
            raise RunFailedError(
                f"the training loss is {loss.item()} at update {self.done}",
                hint="a lower learning_rate, a clip, a longer warm_up or a smaller epsilon keeps it finite",
            )
        self.done += 1
        self.seconds += time.perf_counter() - began

    def watch(self) -> None:
        """If it is time to look and robustness has collapsed: go back to the weights of the last look, and stop."""
        stop = self.method.overfitting_stop
        if stop is None or self.done % (stop.every or self.data.epoch * self.method.replays):
            return
        attack = PGD(steps=stop.steps, step_size=0.25)
        self.network.eval()
        images, labels = self.whole.to(self.device), self.labels.to(self.device)
        attacked = attack.run(self.network, images, labels, self.ball, self.run.seed_for("watch", self.done))
        self.network.train()
        robust = 1 - float(attacked.successful.double().mean())
        if robust < self.healthy.accuracy - stop.drop:
            self.network.load_state_dict(self.healthy.weights)
            self.collapsed = True
        else:
            self.healthy.take(robust, self.network)

    def report(self) -> None:
        """Validate, log, checkpoint."""
        validated = validate(self.network, self.data, self.ball, self.params, self.run)
        aim = "val_robust" if self.method.adversarial else "val_clean"
        if self.params.keep == "best" and validated[aim] > self.best.accuracy:
            self.best.take(validated[aim], self.network)
        cost = {"gradient_evaluations": self.objective.evaluations, "train_seconds": self.seconds}
        stopped = {"collapsed_at": float(self.done)} if self.collapsed else {}
        self.run.log(step=self.done, **self.sums.means(self.params.batch), **validated, **cost, **stopped)
        state = {
            "update": self.done,
            "seconds": self.seconds,
            "collapsed": self.collapsed,
            "evaluations": self.objective.evaluations,
            "best": vars(self.best),
            "healthy": vars(self.healthy),
            "network": self.network.state_dict(),
            "moments": moments(self.optimizer),
            "scaler": self.precision.scaler.state_dict(),
        }
        if self.method.carries:
            state["delta"] = parallel.gather(self.delta)
        self.run.checkpoint(state)
        self.sums = Sums()


def build_optimizer(network: nn.Module, params: TrainingParams) -> torch.optim.Optimizer:
    """The optimizer of all parameters, with or without weight decay of those that are vectors."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    optimizer = params.optimizer.build([(1.0, matrices), (1.0, vectors)])
    if not params.decay_all:
        for group in optimizer.param_groups:
            if group["params"][0].ndim <= 1:
                group["weight_decay"] = 0.0
    return optimizer


def restored_delta(saved: Tensor, batch: Tensor) -> Tensor:
    """This rank's rows of a perturbation that was saved. InputError if it is not one of such a global batch."""
    if saved.shape != batch.shape:
        raise InputError(
            f"the checkpoint has a perturbation of shape {tuple(saved.shape)}, but a batch is {tuple(batch.shape)}",
            hint="go on with the batch that the run began with",
        )
    return parallel.share(saved)


def validate(network: nn.Module, data: TrainingData, ball: Ball, params: TrainingParams, run: Run) -> dict[str, float]:
    """Clean and robust accuracy on the images held out; the network trains on afterwards."""
    network.eval()
    right = correct(network, data.held_out, params.validation_batch)
    verdict = attacked(
        network,
        data.held_out,
        params.validation,
        ball,
        params.validation_batch,
        lambda index: run.seed_for("validation", index),
    )
    network.train()
    return {"val_clean": float(right.double().mean()), "val_robust": float(verdict.robust.double().mean())}
