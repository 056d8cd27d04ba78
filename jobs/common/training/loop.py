"""The training loop of all studies.

    for each weight update:  batch -> step.backward -> sum over ranks -> step.adjust_gradients -> clip -> move the
                             weights -> step.after
    every `report_every`:    read the averages -> step.validate -> keep the best -> log -> checkpoint

A study says in a `Step` what its loss is and what else changes, and in a `Plan` how long and how fast. What is
training is counted in is weight updates. A killed training goes on from its checkpoint to the same weights bit for bit
where batches and seeds depend on the number of the update alone.
"""

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jobs.common.training import parallel
from jobs.common.training.averages import Averages, Term
from jobs.common.training.engine import Batch, Engine, tiny_as_zero
from jobs.common.training.loader import Batches, Loader
from jobs.common.training.optimizers import OptimizerParams, moments, restore_moments, set_rate
from service.errors import FieldError, RunFailedError
from service.run import Run


@dataclass
class Progress:
    """How far a training is."""

    updates: int = 0
    """of the weights, so far"""
    seconds: float = 0.0
    """spent on them, without validation and checkpoints"""
    stopped: bool = False
    """whether the study has ended it early"""


@dataclass
class Snapshot:
    """Weights, and how they scored. Of equal scores the first counts."""

    score: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)

    def take(self, score: float, network: nn.Module) -> None:
        """Keep a copy of the network's weights, where they are."""
        self.score = score
        self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


class Step:
    """What a study does with a batch, and what it carries from one update to the next."""

    repeatable: ClassVar[bool] = False
    """whether `backward` may be asked for the same update again, at other weights, as L-BFGS does"""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @abstractmethod
    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        """Add the gradients of a batch to the weights, by `engine.scaled(loss).backward()`.

        update: the number of the weight update, from 0. Returns what is averaged for the next report; the loss, under
        the name `loss`, has to stay finite. With several ranks each takes its rows of the batch.
        """

    def train_mode(self) -> None:
        """Put the network into the mode that it is trained in."""
        self.engine.network.train()

    def adjust_gradients(self) -> None:
        """Put something else in the place of the gradients of an update, which are those of all ranks."""

    def after(self, progress: Progress) -> bool:
        """Look at the weights after an update. Returns whether training ends here."""
        return False

    def validate(self, progress: Progress) -> dict[str, float]:
        """Metrics for a report. The network is in evaluation mode."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold besides weights and optimizer. All ranks ask for it."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`."""


@dataclass(frozen=True)
class Plan:
    """How long a network is trained, how fast, and how often it is looked at."""

    updates: int
    """weight updates in all"""
    rates: OptimizerParams
    """learning rate and clipping"""
    report_every: int
    """weight updates between two reports"""
    seed: Callable[[int], int | None]
    """of torch's own generator (dropout) before an update of that number; None: it goes on as it is"""
    updates_per_tick: int = 1
    """of the learning rate's schedule"""
    best_by: str | None = None
    """the metric of validation, higher is better, whose best weights are kept; None: the last weights are"""
    phase: str = "main"
    """of the run's checkpoint"""
    prefix: str = ""
    """of the names of averages"""
    updates_per_step: int = 1
    """of a row of metrics"""
    first_step: int = 0
    """at which rows of metrics begin"""

    def rate(self, update: int) -> float:
        """The learning rate of an update."""
        return self.rates.rate(update // self.updates_per_tick, self.updates // self.updates_per_tick)

    def reports_at(self, progress: Progress) -> bool:
        return progress.updates % self.report_every == 0 or progress.updates == self.updates or progress.stopped


class Evaluation:
    """The loss and the gradients of an update, which may be asked for again: at other weights, with the same draws."""

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, batches: list[Batch], update: int) -> None:
        self._step, self._optimizer, self._batches, self._update = step, optimizer, batches, update
        self._random = step.engine.random_state() if step.repeatable else []
        self.terms = self._passes()
        """what the step reports of the first time"""
        self._first = True

    def again(self) -> Tensor:
        """The loss over all ranks. The first time gradients are there, then they are computed anew."""
        terms, first, self._first = self.terms, self._first, False
        if not first:
            self._step.engine.set_random_state(self._random)
            terms = self._passes()
        total = torch.stack([each["loss"].total.double() for each in terms]).sum()
        return parallel.total(total) / terms[-1]["loss"].weight

    def _passes(self) -> list[dict[str, Term]]:
        self._optimizer.zero_grad()
        with self._step.engine.passes():
            terms = [self._step.backward(batch, self._update) for batch in self._batches]
        parallel.sum_gradients(self._step.engine.network.parameters())
        self._step.adjust_gradients()
        return terms


def train(step: Step, optimizer: torch.optim.Optimizer, data: Batches, plan: Plan, run: Run | None = None) -> Progress:
    """Train the network of a step in place; it comes back in evaluation mode.

    Goes on from the run's checkpoint of the plan's phase, if there is one. Logs the averages of what the step reports
    as `train_NAME`, and what it validates. run: None trains without log and checkpoint. RunFailedError if the loss
    stops being finite. FieldError if updates cannot be repeated, as L-BFGS does.
    """
    engine, network = step.engine, step.engine.network
    asks_again = isinstance(optimizer, torch.optim.LBFGS)
    if asks_again and not step.repeatable:
        raise FieldError("optimizer.kind", "be another one where updates cannot be repeated", "lbfgs")
    progress, best, averages = Progress(), Snapshot(), Averages()
    if run is not None and (saved := run.restore(plan.phase)) is not None:
        progress, best = Progress(**saved["progress"]), Snapshot(**saved["best"])
        network.load_state_dict(saved["network"])
        restore_moments(optimizer, saved["moments"])
        engine.scaler.load_state_dict(saved["scaler"])
        step.restore(saved["step"])

    reported = progress.updates
    step.train_mode()
    with (
        torch.random.fork_rng(devices=engine.random_devices),
        closing(Loader(data, engine, plan.updates * engine.accumulate)) as loader,
    ):
        while progress.updates < plan.updates and not progress.stopped:
            began = time.perf_counter()
            if (seed := plan.seed(progress.updates)) is not None:
                engine.seed(seed)
            set_rate(optimizer, plan.rate(progress.updates))
            passes = range(progress.updates * engine.accumulate, (progress.updates + 1) * engine.accumulate)
            batches = [loader.batch(index) for index in passes]
            with tiny_as_zero():
                evaluation = Evaluation(step, optimizer, batches, progress.updates)
                averages.add(evaluation.terms)
                engine.move(optimizer, plan.rates.clip, evaluation.again if asks_again else None)
            progress.updates += 1
            progress.seconds += time.perf_counter() - began

            progress.stopped = step.after(progress)
            if not plan.reports_at(progress):
                continue
            began = time.perf_counter()
            means = averages.read()  # waits for a GPU: its time is that of the updates
            progress.seconds += time.perf_counter() - began
            _check_finite(means["loss"], reported, progress.updates)
            reported = progress.updates
            network.eval()
            metrics = step.validate(progress)
            step.train_mode()
            if plan.best_by is not None and metrics[plan.best_by] > best.score:
                best.take(metrics[plan.best_by], network)
            if run is not None:
                means = {f"{plan.prefix}train_{name}": value for name, value in means.items()}
                run.log(step=plan.first_step + progress.updates // plan.updates_per_step, **means, **metrics)
                state = {
                    "progress": vars(progress),
                    "best": vars(best),
                    "network": network.state_dict(),
                    "moments": moments(optimizer),
                    "scaler": engine.scaler.state_dict(),
                    "step": step.state(),
                }
                run.checkpoint(state, plan.phase)
    if best.weights:
        network.load_state_dict(best.weights)
    network.eval()
    return progress


def _check_finite(loss: float, reported: int, updates: int) -> None:
    """RunFailedError if the mean loss since the last report is not a number any more."""
    if not math.isfinite(loss):
        raise RunFailedError(
            f"the training loss is {loss}: it stopped being finite between weight updates {reported + 1} and {updates}",
            hint="a lower learning_rate, a clip or a longer warm_up keeps it finite",
        )
