"""A weight update of any method: its minibatch, its perturbation, validation under attack, and the watch for collapse.

What is counted is weight updates, and so is the schedule of the learning rate: a method that replays minibatches makes
as many updates as the others from fewer of them (Shafahi et al. 2019, section 4 and code).
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.attacks.ball import Ball
from jobs.common.attacks.pgd import PGD
from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.training_data import TrainingImages
from jobs.common.params import StudyParams
from jobs.common.robustness.accuracy import attacked, correct
from jobs.common.training import loop, parallel
from jobs.common.training.adversarial.methods.base import Method
from jobs.common.training.adversarial.objective import Objective
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams, device_of
from service.errors import InputError
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
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it trains")
    report_every: int = Field(500, ge=1, description="weight updates between two validations, each with a checkpoint")
    held_out: int = Field(100, ge=1, description="training images that are kept for validation")
    validation: PGD = Field(PGD(steps=10, step_size=0.25), description="the attack on the images held out")
    validation_batch: int = Field(
        100, ge=1, le=100_000, description="images attacked at once in validation; results depend on it"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="weights to keep: the last, or those of the best robust (natural: clean) validation"
    )


def train(
    network: nn.Module,
    data: TrainingImages,
    method: Method,
    ball: Ball,
    params: TrainingParams,
    run: Run,
    name: str = "",
    first_step: int = 0,
) -> None:
    """Train a network in place. Goes on from the run's checkpoint if there is one, to the same weights bit for bit.

    With several ranks each has its rows of every batch; the weights are those of one process up to rounding.
    name: sets the network apart in checkpoints and metrics, if it is one of several; "" if it is the only one.
    first_step: updates of those before it. Logs train_loss, train_accuracy, and what `AdversarialStep.validate` says,
    after the name. RunFailedError if the loss stops being finite. InputError: half precision without a GPU, or a
    checkpoint of another batch.
    """
    params.engine.check(device_of(network))
    prefix = f"{name}_" if name else ""
    step = AdversarialStep(Engine(network, params.engine), data, method, ball, params, run, prefix)
    best_by = prefix + ("val_robust" if method.adversarial else "val_clean")
    plan = loop.Plan(
        updates=params.updates,
        rates=params.optimizer,
        report_every=params.report_every,
        seed=lambda update: run.seed_for("dropout", update, parallel.rank()),
        best_by=None if params.keep == "last" else best_by,
        phase=name.replace("_", "-") or "main",
        prefix=prefix,
        first_step=first_step,
    )
    loop.train(step, build_optimizer(step.engine.network, params), Replayed(data, method.replays), plan, run)


class Replayed:
    """Batches that are each given several times in a row."""

    def __init__(self, data: TrainingImages, replays: int) -> None:
        self._data, self._replays = data, replays
        self._minibatch, self._batch = -1, (torch.empty(0), torch.empty(0))

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """The minibatch of a weight update."""
        if (minibatch := index // self._replays) != self._minibatch:
            self._minibatch, self._batch = minibatch, self._data.batch(minibatch)
        return self._batch


class AdversarialStep(loop.Step):
    """An update by a method. The perturbation goes from one to the next, and a collapse of robustness ends training."""

    def __init__(
        self,
        engine: Engine,
        data: TrainingImages,
        method: Method,
        ball: Ball,
        params: TrainingParams,
        run: Run,
        prefix: str = "",
    ) -> None:
        """prefix: of the names of metrics."""
        super().__init__(engine)
        self.prefix = prefix
        self.data, self.method, self.ball, self.params, self.run = data, method, ball, params, run
        self.objective = Objective(engine, params.batch, params.label_smoothing)
        self.batch: Batch = ()  # of all ranks
        self.delta = parallel.share(torch.zeros(data.shape)).to(engine.device)  # of this rank's rows
        self.healthy = loop.Snapshot()

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        self.batch = batch
        minibatch, replay = divmod(update, self.method.replays)
        if replay == 0:
            noise = torch.Generator(self.engine.device).manual_seed(self.run.seed_for("noise", minibatch))
            if (fresh := self.method.fresh(batch[0], self.ball, noise)) is not None:
                self.delta = parallel.share(fresh)
        images, labels = map(parallel.share, batch)
        loss, logits, self.delta = self.method.update(self.objective, images, labels, self.delta, self.ball)
        right = (logits.argmax(1) == labels).sum()
        return {"loss": Term(loss, 1), "accuracy": Term(right, self.params.batch)}

    def after(self, progress: loop.Progress) -> bool:
        """If it is time to look and robustness has collapsed: go back to the weights of the last look, and stop."""
        stop, network = self.method.overfitting_stop, self.engine.network
        if stop is None or progress.updates % (stop.every or self.data.epoch * self.method.replays):
            return False
        network.eval()
        images, labels = self.batch
        seed = self.run.seed_for("watch", progress.updates)
        result = PGD(steps=stop.steps, step_size=0.25).run(network, images, labels, self.ball, seed)
        self.train_mode()
        robust = 1 - float(result.successful.double().mean())
        if robust < self.healthy.score - stop.drop:
            network.load_state_dict(self.healthy.weights)
            return True
        self.healthy.take(robust, network)
        return False

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        """On the images held out, and the work so far: val_clean, val_robust, gradient_evaluations, train_seconds; and
        collapsed_at, if that stopped training.
        """
        stopped = {"collapsed_at": float(progress.updates)} if progress.stopped else {}
        metrics = {
            **validate(self.engine.network, self.data, self.ball, self.params, self.run),
            "gradient_evaluations": float(self.objective.evaluations),
            "train_seconds": progress.seconds,
            **stopped,
        }
        return {f"{self.prefix}{name}": value for name, value in metrics.items()}

    def state(self) -> dict[str, Any]:
        state = {"evaluations": self.objective.evaluations, "healthy": vars(self.healthy)}
        return {**state, "delta": parallel.gather(self.delta)} if self.method.carries else state

    def restore(self, state: dict[str, Any]) -> None:
        self.objective.evaluations = state["evaluations"]
        self.healthy = loop.Snapshot(**state["healthy"])
        if "delta" in state:  # else from none, as at the start
            self.delta = restored_delta(state["delta"], self.data.shape).to(self.engine.device)


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


def restored_delta(saved: Tensor, shape: tuple[int, ...]) -> Tensor:
    """This rank's rows of a perturbation that was saved. InputError if it is not of the shape of a global batch."""
    if tuple(saved.shape) != shape:
        raise InputError(
            f"the checkpoint has a perturbation of shape {tuple(saved.shape)}, but a batch is {shape}",
            hint="go on with the batch that the run began with",
        )
    return parallel.share(saved)


def validate(
    network: nn.Module, data: TrainingImages, ball: Ball, params: TrainingParams, run: Run
) -> dict[str, float]:
    """Clean and robust accuracy on the images held out. network: in evaluation mode."""
    right = correct(network, data.held_out, params.validation_batch)
    verdict = attacked(
        network,
        data.held_out,
        params.validation,
        ball,
        params.validation_batch,
        lambda index: run.seed_for("validation", index),
    )
    return {"val_clean": float(right.double().mean()), "val_robust": float(verdict.robust.double().mean())}
