"""Deep-thinking models as endpoints: how long to think, when to stop, and whether the answer is right.

Parameters of a request (all optional):

    iterations  how many, at most if there is an exit rule. Default: as in training, or ten times that with a rule
    exit        "confidence": the most confident answer of all. "unchanged": the first that stays for `patience`
                iterations, or goes to and fro between two
    patience    default 5

An answer holds the prediction, its confidence, the iteration that it comes from, and whether the exact verifier of the
problem finds it right: confidence is not correctness.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.problems import base, problem
from jobs.deep_thinking.thinking import MostConfident, Thought, Unchanged, think
from service.errors import AssayError, BusyError, InputError, ModelError, nearest
from service.models import ModelCard, TensorSpec
from serving.http.protocol import Scalar, check_parameters
from serving.http.settings import ServeSettings
from serving.http.tensors import Array
from serving.http.uploads import ImageInput
from serving.kinds.endpoint import TENSORS, Abandoned, Answer, Form, Stopped, Work
from serving.kinds.multiplications import CountMacs

LONGER = 10  # times the iterations of training that an exit rule may take by default
PATIENCE = 5
TRIAL = 8  # side of the small input on which a model is tried and its work is counted


class ProblemOfCard(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    options: dict[str, Any] = {}


class CardSettings(BaseModel):
    """What the card of a deep-thinking model says of how to use it."""

    problem: ProblemOfCard
    trained_iterations: int = Field(ge=1)


class Rule(Protocol):
    """Which of the answers is given."""

    prediction: Tensor | None
    confidence: Tensor | None
    iteration: Tensor | None

    def see(self, thought: Thought) -> Tensor: ...


class Newest:
    """No exit rule: the newest answer, or the last one before the features overflowed."""

    prediction: Tensor | None = None
    confidence: Tensor | None = None
    iteration: Tensor | None = None

    def see(self, thought: Thought) -> Tensor:
        before = torch.zeros_like(thought.finite, dtype=torch.int64) if self.iteration is None else self.iteration
        self.prediction, self.confidence = thought.prediction, thought.confidence
        self.iteration = torch.where(thought.finite, thought.iteration, before)
        return thought.finite


@dataclass(frozen=True)
class Ask:
    """How a request wants its model to think."""

    iterations: int
    exit: str | None
    patience: int

    def rule(self) -> Rule:
        match self.exit:
            case "confidence":
                return MostConfident()
            case "unchanged":
                return Unchanged(self.patience)
        return Newest()


EXITS = ("confidence", "unchanged")


class DeepThinking:
    """A loaded model. Raises ModelError if the network does not fit the problem that its card names."""

    actions: ClassVar[tuple[str, ...]] = ("infer", "infer_stream")
    image: ImageInput | None = None

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings) -> None:
        self.card = card
        self.inputs, self.outputs = card.inputs, self.outputs_of(card)
        self._limits, self._max_rows = settings.limits, settings.batching.max_rows
        try:
            parsed = CardSettings.model_validate(card.settings)
            self._problem = _problem(parsed.problem, settings.models.trusted)
        except (ValidationError, AssayError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise ModelError(f"model {card.name!r}: its card does not say how it is used: {reason}") from error
        self._trained = parsed.trained_iterations
        expected = (-1, self._problem.channels, *[-1] * self._problem.dimensions)
        if [spec.shape for spec in card.inputs] != [expected]:
            raise ModelError(f"model {card.name!r}: {self._problem.name} needs one input of shape {list(expected)}")
        self._device = torch.device("cuda" if settings.replicas.gpus and torch.cuda.is_available() else "cpu")
        self._network = cast(Thinker, network.to(self._device))  # tried in the next line
        self._step_macs, self._answer_macs = self._count_macs()

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        """What is answered: the first input without its channels, and one value for each row."""
        space = card.inputs[0].shape[2:] if card.inputs else ()
        return (
            TensorSpec(name="prediction", datatype="INT64", shape=(-1, *space)),
            TensorSpec(name="confidence", datatype="FP32", shape=(-1,)),
            TensorSpec(name="iterations", datatype="INT64", shape=(-1,)),
            TensorSpec(name="verified", datatype="BOOL", shape=(-1,)),
        )

    def _count_macs(self) -> tuple[float, float]:
        """Multiplications per position: of an iteration, and of reading the answer out."""
        inputs = torch.zeros(1, self._problem.channels, *[TRIAL] * self._problem.dimensions, device=self._device)
        positions = TRIAL**self._problem.dimensions
        try:
            with torch.no_grad(), CountMacs() as counter:
                features = self._network.start(inputs)
                before = counter.total
                features = self._network.step(features, inputs, 0)
                between = counter.total
                self._network.answer(features)
        except (AttributeError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"model {self.card.name!r} does not run on {self._problem.name}: {reason}") from error
        return (between - before) / positions, (counter.total - between) / positions

    # ---- before the batch -------------------------------------------------------------------------------------------

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        """Check everything that can be wrong with a request. inputs: (rows, channels, *space), as the card says."""
        (array,) = inputs.values()
        ask = self._ask(parameters)
        if len(array) > self._max_rows:
            raise InputError(
                f"input {self.inputs[0].name!r}: {len(array)} rows; at most {self._max_rows} are taken at once"
            )
        self._check_budget(array, ask)
        tensor = torch.from_numpy(array.copy())  # the array may be a read-only view of the body
        for row, complaint in enumerate(self._problem.check_inputs(tensor)):
            if complaint:
                raise InputError(f"input {self.inputs[0].name!r}, row {row}: {complaint}")
        warnings = [f"row {row}: {text}" for row, text in enumerate(self._problem.warnings(tensor)) if text]
        return Work(array, (array.shape[1:], ask), ask, "; ".join(warnings))

    def _ask(self, parameters: Mapping[str, Scalar]) -> Ask:
        check_parameters(parameters, ("iterations", "exit", "patience"))
        exit_ = parameters.get("exit")
        if exit_ is not None and exit_ not in EXITS:
            raise InputError(f"parameter 'exit': unknown rule {exit_!r}", nearest(str(exit_), EXITS))
        longest = min(self._limits.iterations, self._network.max_iterations or self._limits.iterations)
        default = min(self._trained * (LONGER if exit_ else 1), longest)
        iterations = _whole("iterations", parameters.get("iterations", default), longest)
        patience = _whole("patience", parameters.get("patience", PATIENCE), self._limits.iterations)
        return Ask(iterations, str(exit_) if exit_ else None, patience)

    def _check_budget(self, array: Array, ask: Ask) -> None:
        positions = len(array) * prod(array.shape[2:])
        each = positions * (self._step_macs + (self._answer_macs if ask.exit else 0)) / 1e9
        if each * ask.iterations > self._limits.gmacs:
            most = int(self._limits.gmacs / each)
            advice = f"at most {most} iterations of this input are allowed" if most else "send fewer or smaller inputs"
            raise InputError(
                f"{positions:,} positions x {ask.iterations:,} iterations are {each * ask.iterations:,.0f} billion "
                f"multiplications; {self._limits.gmacs:,.0f} are allowed",
                advice,
            )

    # ---- in a thread ------------------------------------------------------------------------------------------------

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Think about all works at once: they have the same shape and ask the same."""
        inputs = self._tensor(works)
        ask: Ask = works[0].ask
        # without a rule only the last answer is read out; all are, if it turns out that the features overflow
        for first in (1,) if ask.exit else (ask.iterations, 1):
            rule = ask.rule()
            for thought in self._think(inputs, ask, first, stopped):
                if _over(rule, rule.see(thought)):
                    break
            if bool(thought.finite.all()):
                break
        answer = self._answer(inputs, rule.prediction, rule.confidence, rule.iteration)
        answers: list[Answer] = []
        start = 0
        for work in works:
            answers.append({name: array[start : start + work.rows] for name, array in answer.items()})
            start += work.rows
        return answers

    def stream(self, work: Work) -> Iterator[tuple[str, Answer]]:
        """("iteration", answer) after each iteration; at the end ("answer", what `compute` would have answered)."""
        ask: Ask = work.ask
        if (values := work.inputs[:, 0].size * ask.iterations) > self._limits.stream_values:
            raise InputError(
                f"{values:,} numbers would be streamed; {self._limits.stream_values:,} are allowed", "ask at infer"
            )
        inputs = self._tensor([work])
        rule = ask.rule()
        for thought in self._think(inputs, ask, 1, lambda: False):
            over = _over(rule, rule.see(thought))
            iteration = torch.full_like(thought.finite, thought.iteration, dtype=torch.int64)
            yield "iteration", self._answer(inputs, thought.prediction, thought.confidence, iteration)
            if over:
                break
        yield "answer", self._answer(inputs, rule.prediction, rule.confidence, rule.iteration)

    def _tensor(self, works: Sequence[Work]) -> Tensor:
        return torch.from_numpy(np.concatenate([work.inputs for work in works])).to(self._device)

    def _think(self, inputs: Tensor, ask: Ask, first: int, stopped: Stopped) -> Iterator[Thought]:
        deadline = time.monotonic() + self._limits.seconds

        def check() -> None:
            if stopped():
                raise Abandoned
            if time.monotonic() > deadline:
                raise BusyError(
                    f"no answer within {self._limits.seconds:g} s", "ask for fewer iterations or send smaller inputs"
                )

        guarded = cast(Thinker, Guarded(self._network, check))
        return think(guarded, self._problem, inputs, ask.iterations, first=first)

    def _answer(
        self, inputs: Tensor, prediction: Tensor | None, confidence: Tensor | None, iteration: Tensor | None
    ) -> Answer:
        assert prediction is not None and confidence is not None and iteration is not None  # at least one iteration
        return {
            "prediction": prediction.cpu().numpy(),
            "confidence": confidence.cpu().numpy(),
            "iterations": iteration.cpu().numpy(),
            "verified": self._problem.verify(inputs, prediction).cpu().numpy(),
        }


class Guarded:
    """A network that is asked before each iteration whether to go on."""

    def __init__(self, network: Thinker, check: Callable[[], None]) -> None:
        self._network, self._check = network, check
        self.max_iterations = network.max_iterations
        self.start, self.answer = network.start, network.answer

    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        self._check()
        return self._network.step(features, inputs, iteration)


def _problem(named: ProblemOfCard, trusted: tuple[str, ...]) -> base.Problem:
    """The problem of a card, which a stranger may have written: an import path needs a package that is trusted."""
    package = re.split("[.:]", named.name)[0]
    if ":" in named.name and package not in trusted:
        raise ModelError(f"the problem {named.name!r} is outside Assay", f"add {package!r} to models.trusted to use it")
    return problem(named.name, **named.options)


def _over(rule: Rule, seen: Tensor) -> bool:
    return isinstance(rule, Unchanged) and bool(seen.all())


def _whole(name: str, value: Scalar, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise InputError(f"parameter {name!r}: {value!r} is not allowed; whole numbers from 1 to {most:,} are")
    return value
