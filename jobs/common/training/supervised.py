"""Plain training of classifiers: minibatches of a fixed set, the cross entropy, epochs. Weights can be kept on the way.

Which images a batch holds and how they are changed depends on the run's seed, the network's name and the epoch alone,
so a killed training goes on to the same weights bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import ImageSet
from jobs.common.data.training_data import EpochImages, SeedFor
from jobs.common.params import StudyParams
from jobs.common.training import loop
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.common.training.loader import Batches
from jobs.common.training.optimizers import OptimizerParams, device_of, second_moments
from jobs.common.training.proximal import ProximalSteps
from jobs.common.training.schedules import StepDecay
from service.errors import FieldError
from service.run import Run

MOST_KEPT = 2 << 30  # bytes of weights kept along the way: they are part of every checkpoint


class SupervisedParams(StudyParams):
    """How a classifier is trained.

    The default is the recipe of Li et al. 2018 for CIFAR-10 (released code, cifar10/main.py) in 30 epochs instead of
    300: the rate falls after a half, three quarters and eleven twelfths of them.
    """

    epochs: int = Field(30, ge=1, le=10_000_000, description="times that each image is seen")
    batch: int = Field(128, ge=1, le=100_000, description="images in a minibatch")
    optimizer: OptimizerParams = Field(
        OptimizerParams(
            kind="sgd",
            learning_rate=0.1,
            nesterov=True,
            weight_decay=5e-4,
            decay=StepDecay(milestones=(1 / 2, 3 / 4, 11 / 12)),
        ),
        description="how the weights are moved; its ticks are epochs",
    )
    augmentation: AugmentationParams = Field(
        AugmentationParams(padding=4, flip=True), description="random changes of each minibatch"
    )
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it trains")
    keep_every: int | None = Field(
        None, ge=1, description="epochs between two states of the network that are kept, besides the first; none: none"
    )
    report_every: int = Field(1, ge=1, description="epochs between two reports, each with a checkpoint")
    proximal: float | None = Field(
        None,
        gt=0,
        description="step size of ProxProp, which takes a proximal step of each layer for its gradient; none: plain",
    )


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
    second_moments: dict[str, Tensor] = field(default_factory=dict)
    """after training: the running means of squared gradients, by the names of the weights, if the optimizer has any"""

    @property
    def phase(self) -> str:
        """Under which the run keeps its checkpoint."""
        return self.name.strip("_").replace("_", "-").lower() or "main"


class EpochBatches(Batches, Protocol):
    """A training set in batches, gone through in epochs."""

    epoch: int
    """batches in an epoch"""


Assemble = Callable[[Engine, Training, SeedFor], tuple["KeepingStep", EpochBatches]]
"""what a training does with a batch, and its batches; seeds are asked for by a purpose and an epoch"""


def plain(engine: Engine, training: Training, seed_for: SeedFor) -> tuple["KeepingStep", EpochBatches]:
    """The mean cross entropy of minibatches of the images. InputError if these do not fill one."""
    data = epoch_images(engine, training, seed_for)
    return KeepingStep(engine, training, data.epoch), data


def epoch_images(engine: Engine, training: Training, seed_for: SeedFor) -> EpochImages:
    """The images of a training in minibatches. InputError if they do not fill one."""
    params = training.params
    home = params.engine.home(engine.device)
    return EpochImages(training.images, params.batch, params.augmentation, seed_for, home)


def train(trainings: Sequence[Training], run: Run, assemble: Assemble = plain) -> None:
    """Train networks one after another, each as a phase of the run that goes on from its checkpoint if there is one.

    assemble: what is minimised, and over which batches.
    Logs train_loss and train_accuracy (a share) over the images as they were learnt from, after the name of the
    network. RunFailedError if the loss stops being finite. InputError if a set does not fill one batch, or if all that
    is to be kept is too large; half precision without a GPU.
    """
    run.expect(sum(each.params.epochs for each in trainings))
    for each in trainings:
        _check_kept(each)
        each.params.engine.check(device_of(each.network))
    first_step = 0
    for training in trainings:
        _train(training, first_step, run, assemble)
        first_step += training.params.epochs


def _train(training: Training, first_step: int, run: Run, assemble: Assemble) -> None:
    """Train one network. first_step: epochs of the networks before it."""
    params, name = training.params, training.name
    engine = Engine(training.network, params.engine)
    seed_for = partial(_seed, run, name)
    step, data = assemble(engine, training, seed_for)
    plan = loop.Plan(
        updates=params.epochs * data.epoch,
        rates=params.optimizer,
        report_every=params.report_every * data.epoch,
        seed=lambda update: None if update % data.epoch else seed_for("dropout", update // data.epoch),
        updates_per_tick=data.epoch,
        phase=training.phase,
        prefix=name,
        updates_per_step=data.epoch,
        first_step=first_step,
    )
    optimizer = params.optimizer.build([(1.0, list(training.network.parameters()))])
    loop.train(step, optimizer, data, plan, run)
    step.close()
    training.second_moments = second_moments(optimizer, training.network)


def _seed(run: Run, name: str, purpose: str, epoch: int) -> int:
    return run.seed_for(purpose, name, epoch)


class ClassifierStep(loop.Step):
    """An update by the mean cross entropy."""

    repeatable = True

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        images, labels = batch
        logits = self.engine(images)
        loss = functional.cross_entropy(logits, labels)
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        count, right = len(labels), (logits.argmax(1) == labels).sum()
        return {"loss": Term(loss.detach().double() * count, count), "accuracy": Term(right, count)}


class KeepingStep(ClassifierStep):
    """The same, keeping states of the network along the way."""

    def __init__(self, engine: Engine, training: Training, epoch: int) -> None:
        """epoch: updates in an epoch."""
        super().__init__(engine)
        self.training, self.epoch = training, epoch
        tau = training.params.proximal
        self._proximal = None if tau is None else ProximalSteps(engine.network, tau)
        if training.params.keep_every is not None:
            self._keep(0)

    def adjust_gradients(self) -> None:
        if self._proximal is not None:
            self._proximal.replace_gradients()

    def close(self) -> None:
        """Leave the network as it is without training."""
        if self._proximal is not None:
            self._proximal.close()

    def after(self, progress: loop.Progress) -> bool:
        every, epochs = self.training.params.keep_every, self.training.params.epochs
        done, inside = divmod(progress.updates, self.epoch)
        if every is not None and not inside and (done % every == 0 or done == epochs):
            self._keep(done)
        return False

    def state(self) -> dict[str, Any]:
        return {"kept": self.training.kept, "kept_at": self.training.kept_at}

    def restore(self, state: dict[str, Any]) -> None:
        self.training.kept, self.training.kept_at = state["kept"], state["kept_at"]

    def _keep(self, epoch: int) -> None:
        state = self.engine.network.state_dict()
        self.training.kept.append({name: tensor.detach().cpu().clone() for name, tensor in state.items()})
        self.training.kept_at.append(epoch)


def _check_kept(training: Training) -> None:
    every = training.params.keep_every
    if every is None:
        return
    each = sum(tensor.numel() * tensor.element_size() for tensor in training.network.state_dict().values())
    if (total := each * (2 + training.params.epochs // every)) > MOST_KEPT:
        raise FieldError(
            "training.keep_every",
            f"be so large that at most {MOST_KEPT / 2**30:.0f} GB of weights are kept, not {total / 2**30:.1f}",
            every,
        )
