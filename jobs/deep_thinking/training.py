"""Training a network that thinks: the full and the progressive loss, and what else goes into an update.

Source: Bansal et al. 2022, "End-to-end Algorithm Synthesis with Recurrent Networks", section 3.2 and the code released
with it.
"""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.params import StudyParams
from jobs.common.passes import passes
from jobs.common.training import loop, parallel
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams, device_of
from jobs.deep_thinking.data import Data, FixedSet, FreshBatches, Instances
from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.problems.base import Problem
from service.errors import FieldError
from service.run import Run


class TrainingParams(StudyParams):
    """What the network is trained on, and how."""

    size: int = Field(16, ge=1, description="size of the training instances, in the units of the problem")
    iterations: int = Field(15, ge=1, le=1000, description="m: the most iterations used in training")
    alpha: float = Field(1.0, ge=0, le=1, description="weight of the progressive loss; the full loss has the rest")
    batch: int = Field(100, ge=1, le=100_000, description="instances in a weight update")
    data: FreshBatches | FixedSet = Field(FreshBatches(), discriminator="kind", description="where batches come from")
    optimizer: OptimizerParams = Field(
        OptimizerParams(),
        description="how the weights are moved; its ticks are updates of fresh batches, epochs of a fixed set",
    )
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it trains")
    throttle: bool = Field(False, description="divide the learning rate of the recurrent block by `iterations`")
    validation_batch: int = Field(
        500,
        ge=1,
        le=100_000,
        description="instances answered at once in validation on a CPU; on a GPU as many as fit",
    )
    report_every: int = Field(100, ge=1, description="weight updates between two validations, each with a checkpoint")
    keep: Literal["last", "best"] = Field("last", description="weights to keep: the last, or the best in validation")

    @model_validator(mode="after")
    def _graphs(self) -> Self:
        if self.engine.compile == "graphs" and self.alpha > 0:
            bound = "be kernels or none where alpha is above 0: graphs repeat what is equal, and iterations are drawn"
            raise FieldError("engine.compile", bound, self.engine.compile)
        return self


@dataclass(frozen=True)
class Draw:
    """The random part of the progressive loss: `skipped` iterations without gradient, then `counted` ones with it."""

    skipped: int
    counted: int


def draw(iterations: int, seed: int) -> Draw:
    """n uniform in {0, ..., m-1}, then k uniform in {1, ..., m-n}. iterations: m."""
    generator = torch.Generator().manual_seed(seed)
    skipped = int(torch.randint(0, iterations, (), generator=generator))
    return Draw(skipped, int(torch.randint(1, iterations - skipped + 1, (), generator=generator)))


def progressive_logits(network: Thinker, inputs: Tensor, drawn: Draw) -> Tensor:
    """The answer after n + k iterations, of which only the last k have a gradient.

    After skipped iterations the projection of the inputs gets no gradient, as in the released code.
    inputs: (batch, channels, *space). Returns logits (batch, 2, *space).
    """
    features: Tensor | None = None
    if drawn.skipped:
        with torch.no_grad():  # and without the head, whose answers nobody would look at
            features = network.start(inputs)
            for iteration in range(drawn.skipped):
                features = network.step(features, inputs, iteration)
    logits: Tensor = network(inputs, drawn.counted, features, drawn.skipped)[0]
    return logits


def cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Mean cross-entropy over the counted positions of the whole batch, in float32.

    logits: (batch, 2, *space); targets: int64 (batch, *space); counted: bool (batch, *space). Returns a scalar in nats.
    """
    each = functional.cross_entropy(logits.float(), targets, reduction="none")
    return (each * counted).sum() / counted.sum()


def exact(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Whether every counted position of an instance is right. Shapes as in `cross_entropy`. Returns bool (batch,)."""
    return ((logits.argmax(1) == targets) | ~counted).flatten(1).all(1)


def loss(
    network: Thinker, problem: Problem, inputs: Tensor, targets: Tensor, iterations: int, alpha: float, drawn: Draw
) -> tuple[Tensor, Tensor]:
    """(1 - alpha) L_max + alpha L_prog (Bansal et al. 2022, algorithm 1), and which instances were answered exactly.

    A loss with weight 0 is not computed. The answers are those after all iterations, or those of the progressive
    loss if that is the only one. Returns a scalar, and bool (batch,).
    """
    counted = problem.counted(inputs)
    total = inputs.new_zeros(())
    answered = inputs.new_empty(())
    if alpha > 0:
        answered = progressive_logits(network, inputs, drawn)
        total = total + alpha * cross_entropy(answered, targets, counted)
    if alpha < 1:
        answered, _ = network(inputs, iterations)
        total = total + (1 - alpha) * cross_entropy(answered, targets, counted)
    return total, exact(answered.detach(), targets, counted)


def groups(network: Thinker, params: TrainingParams) -> list[tuple[float, list[nn.Parameter]]]:
    """Parameters and the scale of their learning rate: the recurrent block's is 1/m if throttled.

    Recurrent parameters are those with "recur" in their name, so a feed-forward network is never throttled.
    """
    if not params.throttle:
        return [(1.0, list(network.parameters()))]
    recurrent = [parameter for name, parameter in network.named_parameters() if "recur" in name]
    others = [parameter for name, parameter in network.named_parameters() if "recur" not in name]
    return [(1.0, others), (1 / params.iterations, recurrent)]


class ThinkingStep(loop.Step):
    """An update by the full and the progressive loss, validated after m iterations on instances held out."""

    def __init__(
        self, engine: Engine, network: Thinker, problem: Problem, data: Data, params: TrainingParams, run: Run
    ) -> None:
        super().__init__(engine)
        self.network, self.problem, self.data, self.params, self.run = network, problem, data, params, run

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        inputs, targets = batch
        drawn = draw(self.params.iterations, self.run.seed_for("iterations", update))
        with self.engine.autocast():
            value, right = loss(
                self.network, self.problem, inputs, targets, self.params.iterations, self.params.alpha, drawn
            )
        self.engine.scaled(value).backward()  # type: ignore[no-untyped-call]
        return {"loss": Term(value.detach(), 1), "accuracy": Term(right.sum(), len(right))}

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        val_loss, val_accuracy = validate(self.network, self.problem, self.data.validation, self.params)
        return {"val_loss": val_loss, "val_accuracy": val_accuracy}


def train(network: Thinker, problem: Problem, params: TrainingParams, run: Run) -> Data:
    """Train a network in place. Goes on from the run's checkpoint if there is one, to the same weights bit for bit.

    Logs `train_loss`, `train_accuracy` (both since the last report), `val_loss` and `val_accuracy` (both after exactly
    m iterations). Returns the data it used. RunFailedError if the loss stops being finite. FieldError: half precision
    without a GPU.
    """
    device = device_of(network)
    params.engine.check(device)
    data = params.data.open(problem, params.size, params.batch, run, params.engine.home(device))
    run.expect(data.updates)
    step = ThinkingStep(Engine(network, params.engine), network, problem, data, params, run)
    plan = loop.Plan(
        updates=data.updates,
        rates=params.optimizer,
        report_every=params.report_every,
        seed=lambda update: run.seed_for("dropout", update, parallel.rank()),
        updates_per_tick=data.updates_per_tick,
        best_by="val_accuracy" if params.keep == "best" else None,
    )
    loop.train(step, params.optimizer.build(groups(network, params)), data, plan, run)
    return data


@torch.inference_mode()
def validate(network: Thinker, problem: Problem, instances: Instances, params: TrainingParams) -> tuple[float, float]:
    """Loss in nats and the share answered exactly, both after m iterations, on held-out instances.

    network: in evaluation mode.
    """
    count, shape, device = len(instances[0]), instances[0].shape[1:], device_of(network)

    def scores(rows: slice) -> tuple[float, int]:
        inputs, targets = (each[rows].to(device) for each in instances)
        counted = problem.counted(inputs)
        logits, _ = network(inputs, params.iterations)
        loss = cross_entropy(logits, targets, counted).item() * len(inputs)
        return loss, int(exact(logits, targets, counted).sum())

    parts = passes(scores, count, network, shape, purpose="validation", on_cpu=params.validation_batch)
    losses, right = (sum(each) for each in zip(*parts, strict=True))
    return losses / count, right / count
