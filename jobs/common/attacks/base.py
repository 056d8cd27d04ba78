"""The interface of all attacks: what is attacked, within which ball, what counts as success, what comes out.

    result = PGD(steps=20).run(model, images, labels, Ball("Linf", 8 / 255), seed=0)
    result.successful    # on which samples the attack succeeded
    result.adversarials  # the images that it found for them

An attack is a frozen set of parameters with one method, `attack(search, generator)`. It asks the `Search` for logits
and gradients, hands every candidate back to it, and goes on with the samples that remain: one on which it succeeded
leaves the batch at once. The search counts the queries and gradients of each sample.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks import checks
from jobs.common.attacks.ball import Ball, Norm
from jobs.common.attacks.goals import Goal, goal
from jobs.common.attacks.projections import broadcast
from jobs.common.params import StudyParams
from service.errors import InputError

__all__ = ["Attack", "Ball", "Cost", "Goal", "Loss", "Model", "Norm", "Result", "Search", "all_finite", "kept"]

Model = Callable[[Tensor], Tensor]
"""images (batch, channels, height, width) in [0, 1] -> logits (batch, classes), or (batch, classes, height, width)"""

Loss = Callable[[Tensor, Goal], Tensor]
"""logits (batch, classes, ...), goal -> (batch, ...): the larger, the nearer to the goal"""


@dataclass(frozen=True)
class Result:
    """What an attack did to each sample of a batch."""

    adversarials: Tensor
    """(batch, channels, height, width): the first that succeeded; if none did, the attack's last candidate"""
    successful: Tensor
    """bool (batch,)"""
    not_finite: Tensor
    """bool (batch,): the model gave a NaN or infinite logit at some of the points tried, none of which counts"""
    distances: Tensor
    """float64 (batch,): norm of adversarial - image"""
    minimum_distances: Tensor
    """float64 (batch,): the least norm known to succeed, beyond epsilon too if an attack looked there; or inf"""
    queries: Tensor
    """int64 (batch,): forward passes"""
    gradients: Tensor
    """int64 (batch,): backward passes"""
    warnings: tuple[str, ...] = ()
    """why the result may flatter the model, one sentence each"""


class Search:
    """The state of one attack, or of several in turn, on one batch.

    For models that answer the same image differently each time, attacks follow the expectation (Athalye, Carlini &
    Wagner 2018, expectation over transformation): logits, losses and gradients are means over `passes`, with a standard
    error of their deviation over sqrt(passes). And a point is at its goal only if it is so in more than half of
    `confirmations` passes more; else its logits are those of a pass in which it is not. A point that a model takes for
    the goal with probability p < 1/2 is confirmed with probability at most exp(-2 confirmations (1/2 - p)^2)
    (Hoeffding), and one of n such points with at most n times that: with 100 confirmations, one of 1,000 points of
    p = 0.25 in 0.4 % of all searches, while without any nearly every search would end with such a point.

    rows: int64 (k,), places in the whole batch; points: (k, channels, height, width), their candidates, which must lie
    in the ball and in the box. A sample that is at its goal from the start is a success at distance 0. A point at which
    the logits are not finite is worth what the image itself is: it is no success, and it leads nowhere. InputError: the
    model gives anything but finite logits for the images, or labels or targets are not among the classes.
    """

    def __init__(
        self,
        model: Model,
        images: Tensor,
        goal: Goal,
        ball: Ball,
        first: int = 0,
        passes: int = 1,
        confirmations: int = 0,
    ) -> None:
        self.model, self.images, self.goal, self.ball = model, images, goal, ball
        self.passes, self.confirmations = passes, confirmations
        self.warnings: list[str] = []
        self.queries = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.gradients = torch.zeros_like(self.queries)
        rows = torch.arange(len(images), device=images.device)
        clean_logits = self._pass(rows, images)
        checks.check_logits(clean_logits, goal.labels, goal.targets, first)
        self.clean_logits = self._confirmed(rows, images, clean_logits)
        self.adversarials = images.clone()
        self.successful = goal.reached(self.clean_logits)
        self.minimum_distances = torch.where(self.successful, 0.0, torch.inf).double()
        self.shares = self.successful.float()
        self.not_finite = torch.zeros_like(self.successful)
        self.set_aside = torch.zeros_like(self.successful)
        """bool (batch,): those that an ensemble leaves alone"""
        self._steep = torch.zeros_like(self.successful)
        """bool (batch,): a gradient was not finite where the logits were"""
        self._gradients_checked = False

    @property
    def remaining(self) -> Tensor:
        """The rows on which no attack has succeeded, and which are not set aside."""
        return (~self.successful & ~self.set_aside).nonzero().squeeze(1)

    def generator(self, seed: int) -> torch.Generator:
        """What an attack takes its random numbers from, on the device of the images."""
        return torch.Generator(self.images.device).manual_seed(seed)

    def starts(self, restarts: int) -> Iterator[Tensor]:
        """The rows that remain before each of so many starts; none follows once there are no more."""
        for _ in range(restarts):
            rows = self.remaining
            if not len(rows):
                return
            yield rows

    def logits(self, rows: Tensor, points: Tensor, model: Model | None = None) -> Tensor:
        """(k, classes), all finite. Counts one query for each row.

        model: another way to the same logits; default the model of the search.
        """
        logits = self._pass(rows, points, model)
        if self.passes > 1:
            logits = torch.stack([logits, *(self._pass(rows, points, model) for _ in range(self.passes - 1))]).mean(0)
        if not all_finite(logits):
            lost = _not_finite(logits)
            self.not_finite[rows[lost]] = True
            logits = logits.where(~broadcast(lost, logits), self.clean_logits[rows])
        return self._confirmed(rows, points, logits)

    def gradient(
        self, rows: Tensor, points: Tensor, loss: Loss, aim: Goal | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (k, classes), losses (k,) and the gradient of the losses by the points. Counts both kinds of work.

        aim: what the loss is about; default the goal of the search. The logits are those of the last pass, as in the
        released code of AutoAttack.
        """
        aims = [self.goal[rows] if aim is None else aim]
        logits, losses, gradients = self.gradients_towards(rows, points, loss, aims)
        return logits, losses[0], gradients[0]

    def gradients_towards(
        self, rows: Tensor, points: Tensor, loss: Loss, aims: Sequence[Goal]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The same for each of several aims, from one pass forward."""
        passes = self.passes
        logits, losses, gradients = _backward(self.model, points, loss, aims)
        for _ in range(passes - 1):
            logits, more_losses, more_gradients = _backward(self.model, points, loss, aims)
            losses = [one + more for one, more in zip(losses, more_losses, strict=True)]
            gradients = [one + more for one, more in zip(gradients, more_gradients, strict=True)]
        if passes > 1:
            losses, gradients = [each / passes for each in losses], [each / passes for each in gradients]
        self.queries.index_add_(0, rows, torch.full_like(rows, passes))
        self.gradients.index_add_(0, rows, torch.full_like(rows, passes * len(aims)))

        lost = torch.zeros_like(rows, dtype=torch.bool)
        if not all_finite(logits, *losses, *gradients):
            lost = _not_finite(logits) | torch.stack([each.isnan() for each in losses]).any(0)
            self.not_finite[rows[lost]] = True
            self._steep[rows[torch.stack([_not_finite(each) for each in gradients]).any(0) & ~lost]] = True
            gradients = [each.nan_to_num() for each in gradients]
            clean = self.clean_logits[rows]
            logits = logits.where(~broadcast(lost, logits), clean)
            losses = [each.where(~lost, aim.average(loss(clean, aim))) for each, aim in zip(losses, aims, strict=True)]
        if not self._gradients_checked:
            self._gradients_checked = True
            self.warnings += checks.zero_gradients(gradients[0][~lost])
        return self._confirmed(rows, points, logits), losses, gradients

    def record(self, rows: Tensor, points: Tensor, logits: Tensor) -> Tensor:
        """Keep the candidates. Returns which of them succeed: bool (k,). A sample keeps its first success.

        A map without success keeps what brought the most of its pixels to the goal. The rows must be distinct.
        """
        shares = self.goal[rows].share(logits)
        now = shares == 1
        rows, points, hits, shares = kept(
            ~self.successful[rows] & (shares >= self.shares[rows]), rows, points, now, shares
        )
        self.keep(rows, points)
        self.shares[rows] = shares
        self.successful[rows[hits]] = True
        return now

    def keep(self, rows: Tensor, points: Tensor) -> None:
        """Keep candidates that did not succeed, of samples that remain."""
        self.adversarials.index_copy_(0, rows, points.detach())

    def record_minimum(self, rows: Tensor, points: Tensor) -> None:
        """Note points that are known to be at the goal, in the ball or not. Those in the ball are successes.

        For attacks that look for the smallest perturbation. The rows must be distinct.
        """
        distances = self.ball.distances(points, self.images[rows])
        self.minimum_distances[rows] = torch.minimum(self.minimum_distances[rows], distances)
        successes = (distances <= self.ball.longest) & ~self.successful[rows]
        self.adversarials[rows[successes]] = points[successes]
        self.successful[rows[successes]] = True

    def result(self) -> Result:
        distances = self.ball.distances(self.adversarials, self.images)
        minimum = torch.where(self.successful, torch.minimum(distances, self.minimum_distances), self.minimum_distances)
        return Result(
            self.adversarials,
            self.successful,
            self.not_finite,
            distances,
            minimum,
            self.queries,
            self.gradients,
            tuple(self.warnings + checks.not_finite(self.not_finite, self._steep)),
        )

    def _confirmed(self, rows: Tensor, points: Tensor, logits: Tensor) -> Tensor:
        """The logits; where the goal is not reached in most passes more, those of one in which it is not."""
        if not self.confirmations:
            return logits
        hits = self.goal[rows].reached(logits).nonzero().squeeze(1)
        if not len(hits):
            return logits
        goal, failed, times = self.goal[rows[hits]], logits[hits], torch.zeros_like(hits)
        for _ in range(self.confirmations):
            again = self._pass(rows[hits], points[hits])
            reached = goal.reached(again)
            times += reached
            failed = failed.where(broadcast(reached | _not_finite(again), again), again)
        lost = 2 * times <= self.confirmations
        logits = logits.clone()
        logits[hits[lost]] = failed[lost]
        return logits

    def _pass(self, rows: Tensor, points: Tensor, model: Model | None = None) -> Tensor:
        self.queries.index_add_(0, rows, torch.ones_like(rows))
        with torch.no_grad():
            return (model or self.model)(points)


class Cost(NamedTuple):
    """Passes through the model for one sample."""

    forward: int
    backward: int

    def times(self, count: int) -> "Cost":
        return Cost(self.forward * count, self.backward * count)


class Attack(StudyParams):
    """The parameters of an attack, and the attack. Its children say their `kind` and `attack`."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1")
    """the balls it knows"""
    takes_maps: ClassVar[bool] = False
    """whether it attacks models of pixels, too"""

    kind: str = Field(description="the name of the attack")
    passes: int = Field(1, ge=1, le=1000, description="answers averaged at each point, for models that are random")
    confirmations: int = Field(
        0, ge=0, le=10_000, description="passes of which most must confirm a success, for models that are random"
    )

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        ball: Ball,
        seed: int = 0,
        targets: Tensor | None = None,
        first: int = 0,
    ) -> Result:
        """Attack a batch. The same arguments give the same result.

        model: in evaluation mode. images: float (batch, channels, height, width) in [0, 1]; labels, targets: int64
        (batch,). targets: the class that each sample is to be taken for; None: any but its label. A model of pixels has
        labels and targets (batch, height, width), in which a pixel below 0 does not count. first: the place of the
        first image in the whole set, if this is a part of one. Raises InputError, one sentence, about the first thing
        that is wrong with them; it names an image by its place in the whole set.
        """
        search = self.begin(model, images, labels, ball, targets, first)
        self.attack(search, search.generator(seed))
        return search.result()

    def begin(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        ball: Ball,
        targets: Tensor | None = None,
        first: int = 0,
    ) -> Search:
        """The search of `run` before the attack: the clean images alone are asked for. InputError as there."""
        checks.check_batch(images, labels, targets, first)
        self.check_ball(ball, images)
        checks.check_evaluation_mode(model)
        checks.check_takes(self.kind, self.takes_maps, labels)
        aim = goal(labels, targets)
        search = Search(model, images, aim, ball, first, self.averaged, self.confirmations)
        checks.check_classes(self.kind, search.clean_logits.shape[1], self.fewest_classes(targets is not None))
        return search

    def check(self, ball: Ball, images: Tensor, classes: int) -> None:
        """InputError if untargeted attacks of images, of which some are given, on a model of so many classes cannot be
        made. For jobs that train the model first.
        """
        self.check_ball(ball, images)
        checks.check_classes(self.kind, classes, self.fewest_classes(targeted=False))

    def check_ball(self, ball: Ball, images: Tensor) -> None:
        """InputError if the attack, with these options, does not search the ball around such images."""
        checks.check_ball(self.kind, self.norms, ball, images)

    @property
    def finds_least(self) -> bool:
        """Whether it looks for the least norm, so that one search tells the outcome at every epsilon."""
        return False

    @property
    def for_random_models(self) -> bool:
        """Whether a model may answer differently each time."""
        return self.averaged > 1 or self.confirmations > 0

    @property
    def averaged(self) -> int:
        """How many answers are averaged at each point."""
        return self.passes

    def fewest_classes(self, targeted: bool) -> int:
        """How many classes a model must have at least."""
        return 2

    @abstractmethod
    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        """What a sample without success costs, and no sample exceeds, with one pass at each point.

        Beside the pass over its clean image. classes: of the model. targeted: each sample has a target of its own.
        """

    def most(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        """What no sample exceeds, with the passes for random models: each of its points may have to be confirmed."""
        cost = self.cost(norm, classes, targeted)
        confirmed = self.confirmations * (cost.forward + 1)
        return Cost(cost.forward * self.averaged + confirmed, cost.backward * self.averaged)

    @abstractmethod
    def attack(self, search: Search, generator: torch.Generator) -> None:
        """Try to succeed on what remains. Everything random comes from the generator."""


def kept(keep: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    """The rows of each state that are kept; the states themselves if all are. keep: bool (k,)."""
    return states if bool(keep.all()) else tuple(state[keep] for state in states)


def _not_finite(values: Tensor) -> Tensor:
    """Which samples have a NaN or infinite value: (batch, ...) -> bool (batch,)."""
    return ~values.isfinite().flatten(1).all(1)


def all_finite(*values: Tensor) -> bool:
    """Whether the sum of all of them is finite, which is quick to see, and waits for a GPU once: if it is, they are."""
    total = values[0].sum()
    for each in values[1:]:
        total = total + each.sum()
    return math.isfinite(total)


def _backward(
    model: Model, points: Tensor, loss: Loss, aims: Sequence[Goal]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits, and for each aim the losses and the gradient of their sum, all detached. InputError: there is none."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(points)
        losses = [aim.average(loss(logits, aim)) for aim in aims]
        if not losses[0].requires_grad:
            raise InputError(
                "the model must pass gradients on to the images; it cuts them off, as torch.no_grad() and detach() do",
                hint="square needs no gradients",
            )
        # summed: averaging would scale the gradient by the batch, and underflow in half precision
        gradients = [torch.autograd.grad(each.sum(), points, retain_graph=len(aims) > 1)[0] for each in losses]
    return logits.detach(), [each.detach() for each in losses], gradients
