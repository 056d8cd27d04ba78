"""Training a network that thinks: the full and the progressive loss, and the loop around them.

Source: Bansal et al. 2022, "End-to-end Algorithm Synthesis with Recurrent Networks", section 3.2 and the code released
with it.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.params import StudyParams
from jobs.common.training.optimizers import OptimizerParams, device_of, moments, restore_moments, set_rate
from jobs.deep_thinking.data import Data, FixedSet, FreshBatches, Instances, batches
from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.problems.base import Problem
from service.errors import RunFailedError
from service.run import Run


class TrainingParams(StudyParams):
    """What the network is trained on, and how."""

    size: int = Field(16, ge=1, description="size of the training instances, in the units of the problem")
    iterations: int = Field(15, ge=1, le=1000, description="m: the most iterations used in training")
    alpha: float = Field(1.0, ge=0, le=1, description="weight of the progressive loss; the full loss has the rest")
    batch: int = Field(100, ge=1, le=100_000, description="instances in a step")
    data: FreshBatches | FixedSet = Field(FreshBatches(), discriminator="kind", description="where batches come from")
    optimizer: OptimizerParams = Field(OptimizerParams(), description="how the weights are moved")
    throttle: bool = Field(False, description="divide the learning rate of the recurrent block by `iterations`")
    validation_batch: int = Field(500, ge=1, le=100_000, description="instances answered at once in validation")
    report_every: int = Field(100, ge=1, description="steps between two validations, each with a checkpoint")
    keep: Literal["last", "best"] = Field("last", description="weights to keep: the last, or the best in validation")


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
    """Mean cross-entropy over the counted positions of the whole batch.

    logits: (batch, 2, *space); targets: int64 (batch, *space); counted: bool (batch, *space). Returns a scalar in nats.
    """
    each = functional.cross_entropy(logits, targets, reduction="none")
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


@dataclass
class Sums:
    """Training loss and accuracy since the last report."""

    loss: float = 0.0
    right: int = 0
    instances: int = 0
    steps: int = 0

    def add(self, loss: float, right: Tensor) -> None:
        self.loss += loss
        self.right += int(right.sum())
        self.instances += len(right)
        self.steps += 1

    def means(self) -> dict[str, float]:
        return {"train_loss": self.loss / self.steps, "train_accuracy": self.right / self.instances}


@dataclass
class Best:
    """The weights that did best in validation so far; of equals the first."""

    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, accuracy: float, network: Thinker) -> None:
        if accuracy > self.accuracy:
            self.accuracy = accuracy
            self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}


def train(network: Thinker, problem: Problem, params: TrainingParams, run: Run) -> Data:
    """Train a network in place. Goes on from the run's checkpoint if there is one, to the same weights bit for bit.

    Logs `train_loss`, `train_accuracy` (both since the last report), `val_loss` and `val_accuracy` (both after exactly
    m iterations). Returns the data it used. RunFailedError if the loss stops being finite.
    """
    data = params.data.open(problem, params.size, params.batch, run)
    run.expect(data.steps)
    network.train()
    optimizer = params.optimizer.build(groups(network, params))
    best, first = Best(), 0
    if (saved := run.restore()) is not None:
        first, best = saved["step"], Best(**saved["best"])
        network.load_state_dict(saved["network"])
        restore_moments(optimizer, saved["moments"])

    device, sums = device_of(network), Sums()
    for step in range(first, data.steps):
        set_rate(optimizer, params.optimizer.rate(data.tick(step), data.ticks))
        inputs, targets = (tensor.to(device) for tensor in data.batch(step))
        drawn = draw(params.iterations, run.seed_for("iterations", step))
        value, right = loss(network, problem, inputs, targets, params.iterations, params.alpha, drawn)
        sums.add(value.item(), right)
        if not math.isfinite(sums.loss):
            raise RunFailedError(
                f"the training loss is {value.item()} at step {step}",
                hint="a lower learning_rate, a clip or a longer warm_up keeps it finite",
            )
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if params.optimizer.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), params.optimizer.clip)
        optimizer.step()

        done = step + 1
        if done % params.report_every == 0 or done == data.steps:
            val_loss, val_accuracy = validate(network, problem, data.validation, params)
            if params.keep == "best":
                best.offer(val_accuracy, network)
            run.log(step=done, **sums.means(), val_loss=val_loss, val_accuracy=val_accuracy)
            run.checkpoint(
                {"step": done, "network": network.state_dict(), "moments": moments(optimizer), "best": vars(best)}
            )
            sums = Sums()
    if best.weights:
        network.load_state_dict(best.weights)
    network.eval()
    return data


@torch.inference_mode()
def validate(network: Thinker, problem: Problem, instances: Instances, params: TrainingParams) -> tuple[float, float]:
    """Loss in nats and the share answered exactly, both after m iterations, on held-out instances."""
    losses, right = 0.0, 0
    network.eval()
    for inputs, targets in batches(instances, params.validation_batch, device_of(network)):
        counted = problem.counted(inputs)
        logits, _ = network(inputs, params.iterations)
        losses += cross_entropy(logits, targets, counted).item() * len(inputs)
        right += int(exact(logits, targets, counted).sum())
    network.train()
    return losses / len(instances[0]), right / len(instances[0])
