"""Deep-thinking models as endpoints: how long to think, when to stop, and whether the answer is right.

Parameters of a request (all optional):

    iterations  how many, at most if there is an exit rule. Default: as in training, or ten times that with a rule
    exit        "confidence": the most confident answer of all, by the rule `exact` of the study. "unchanged": the first
                that stays for `patience` iterations, or goes to and fro between two
    patience    default 5

Outputs: the prediction, its confidence, the iteration that it comes from, and whether the exact verifier of the problem
finds it right, as confidence is not correctness.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.problems import base, problem
from jobs.deep_thinking.thinking import MostConfident, Thought, Unchanged, read_out_last, think
from service.errors import AssayError, BusyError, InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.protocol import Scalar, check_parameters
from serving.http.settings import ServeSettings
from serving.http.tensors import Array
from serving.kinds.base import Endpoint, Example, card_settings, choice, split, unusable, whole_number
from serving.kinds.work import Abandoned, Answer, Stopped, Work

LONGER = 10  # an exit rule may take so many times the iterations of training by default
PATIENCE = 5
TRIAL = 8  # side of the small input on which a model is tried and its work is counted


class ProblemOfCard(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    options: dict[str, Any] = {}


class CardSettings(BaseModel):
    """The settings of the card of a deep-thinking model."""

    problem: ProblemOfCard
    trained_iterations: int = Field(ge=1)


class Rule(Protocol):
    """Chooses one of the answers of all iterations."""

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


class ThinkingOptions(NamedTuple):
    """The parameters of a request, with their defaults."""

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


class DeepThinking(Endpoint):
    """A loaded deep-thinking model."""

    task: ClassVar[str] = "thinking"
    actions: ClassVar[tuple[str, ...]] = ("infer", "infer_stream")
    panel: ClassVar[str] = "thinking"

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        parsed = card_settings(card, CardSettings)
        try:
            self._problem = _problem(parsed.problem, settings.models.trusted)
        except AssayError as error:
            raise unusable(card, str(error)) from error
        self._trained = parsed.trained_iterations
        shape = (-1, self._problem.channels, *[-1] * self._problem.dimensions)
        if [spec.shape for spec in card.inputs] != [shape]:
            raise ModelError(f"model {card.name!r}: {self._problem.name} needs one input of shape {list(shape)}")
        self._thinker = cast(Thinker, self.network)  # the next line runs it as one
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

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        """A row of eight numbers. Inputs of more dimensions depend on the problem."""
        if len(card.inputs) != 1 or card.inputs[0].datatype != "FP32" or len(card.inputs[0].shape) != 3:
            return None
        spec = card.inputs[0]
        shape = [1, *(8 if size == -1 else size for size in spec.shape[1:])]
        data = [0.5 if index % 3 else -0.5 for index in range(prod(shape))]
        tensor = {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data}
        return Example(message={"inputs": [tensor]})

    def _count_macs(self) -> tuple[float, float]:
        """Multiplications per position: of an iteration, and of reading the answer out."""
        inputs = torch.zeros(1, self._problem.channels, *[TRIAL] * self._problem.dimensions, device=self.device)
        with self._trial(self._problem.name) as counter:
            features = self._thinker.start(inputs)
            started = counter.total
            features = self._thinker.step(features, inputs, 0)
            stepped = counter.total
            self._thinker.answer(features)
        positions = TRIAL**self._problem.dimensions
        return (stepped - started) / positions, (counter.total - stepped) / positions

    # ---- before the batch -------------------------------------------------------------------------------------------

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        """inputs: (rows, channels, *space)."""
        (array,) = inputs.values()
        options = self._options(parameters)
        self._check_rows(self.inputs[0].name, array)
        gmacs = self._check_budget(array, options)
        if not array.flags.writeable:  # a view of the body
            array = array.copy()
        tensor = torch.from_numpy(array)
        for row, complaint in enumerate(self._problem.check_inputs(tensor)):
            if complaint:
                raise InputError(f"input {self.inputs[0].name!r}, row {row}: {complaint}")
        warnings = [f"row {row}: {text}" for row, text in enumerate(self._problem.warnings(tensor)) if text]
        values = array[:, 0].size
        return Work(array, (array.shape[1:], options), options, gmacs, values, "; ".join(warnings))

    def _options(self, parameters: Mapping[str, Scalar]) -> ThinkingOptions:
        check_parameters(parameters, ("iterations", "exit", "patience"))
        exit_ = choice("exit", parameters["exit"], EXITS, "rule") if "exit" in parameters else None
        longest = min(self._limits.iterations, self._thinker.max_iterations or self._limits.iterations)
        default = min(self._trained * (LONGER if exit_ else 1), longest)
        iterations = whole_number("iterations", parameters.get("iterations", default), 1, longest)
        patience = whole_number("patience", parameters.get("patience", PATIENCE), 1, self._limits.iterations)
        return ThinkingOptions(iterations, exit_, patience)

    def _check_budget(self, array: Array, options: ThinkingOptions) -> float:
        """10^9 multiplications that the request takes at most. InputError if they are too many."""
        positions = len(array) * prod(array.shape[2:])
        of_iteration = positions * (self._step_macs + (self._answer_macs if options.exit else 0)) / 1e9
        if (work := of_iteration * options.iterations) > self._limits.gmacs:
            most = int(self._limits.gmacs / of_iteration)
            raise InputError(
                f"a request must take at most {self._limits.gmacs:,.0f} billion multiplications (limits.gmacs); "
                f"{positions:,} positions x {options.iterations:,} iterations take {work:,.0f}",
                f"at most {most} iterations of this input are allowed" if most else "send fewer or smaller inputs",
            )
        return work

    # ---- in a thread ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Think about all works at once: they have the same shape and ask the same."""
        inputs = _together(works)
        options: ThinkingOptions = works[0].options
        if options.exit is None and (last := self._last(inputs, options, stopped)) is not None:
            return split(last, works)
        inputs = inputs.to(self.device)
        rule = options.rule()
        for thought in self._think(inputs, options, stopped):
            if _over(rule, rule.see(thought)):
                break
        return split(self._answer(inputs, rule.prediction, rule.confidence, rule.iteration), works)

    def stream(self, work: Work) -> Iterator[tuple[str, Answer]]:
        """("iteration", answer) after each iteration; at the end ("answer", what `compute` would answer)."""
        options: ThinkingOptions = work.options
        if (values := work.inputs[:, 0].size * options.iterations) > self._limits.stream_values:
            raise InputError(
                f"a stream must have at most {self._limits.stream_values:,} numbers (limits.stream_values); "
                f"it would have {values:,}",
                "ask at infer",
            )
        return self._stream(work, options)

    def _stream(self, work: Work, options: ThinkingOptions) -> Iterator[tuple[str, Answer]]:
        inputs = _together([work]).to(self.device)
        rule = options.rule()
        for thought in self._think(inputs, options, lambda: False):
            over = _over(rule, rule.see(thought))
            iteration = torch.full_like(thought.finite, thought.iteration, dtype=torch.int64)
            yield "iteration", self._answer(inputs, thought.prediction, thought.confidence, iteration)
            if over:
                break
        yield "answer", self._answer(inputs, rule.prediction, rule.confidence, rule.iteration)

    def _last(self, inputs: Tensor, options: ThinkingOptions, stopped: Stopped) -> Answer | None:
        """The answer after the last iteration, which alone is read out; None if the features overflow."""
        network, on_device = self._guarded(stopped), inputs.to(self.device)
        features = network.start(on_device)
        for iteration in range(options.iterations):
            features = network.step(features, on_device, iteration)
        read = read_out_last(network.answer(features), self._problem.counted(inputs))
        if read is None:
            return None
        prediction, confidence = read
        return {
            "prediction": prediction,
            "confidence": confidence,
            "iterations": np.full(len(prediction), options.iterations),
            "verified": self._problem.verify(inputs, torch.from_numpy(prediction)).numpy(),
        }

    def _think(self, inputs: Tensor, options: ThinkingOptions, stopped: Stopped) -> Iterator[Thought]:
        network, doubts = self._guarded(stopped), options.exit is not None
        return think(network, self._problem, inputs, options.iterations, doubts=doubts)

    def _guarded(self, stopped: Stopped) -> Thinker:
        """The network. Before each iteration it sees whether it is to go on: Abandoned or BusyError if not."""
        deadline = time.monotonic() + self._limits.seconds

        def check() -> None:
            if stopped():
                raise Abandoned
            if time.monotonic() > deadline:
                raise BusyError(
                    f"no answer within {self._limits.seconds:g} s", "ask for fewer iterations or send smaller inputs"
                )

        return cast(Thinker, Guarded(self._thinker, check))

    def _answer(
        self, inputs: Tensor, prediction: Tensor | None, confidence: Tensor | None, iteration: Tensor | None
    ) -> Answer:
        assert prediction is not None and confidence is not None and iteration is not None  # at least one iteration
        return {
            "prediction": prediction.numpy(force=True),
            "confidence": confidence.numpy(force=True),
            "iterations": iteration.numpy(force=True),
            "verified": self._problem.verify(inputs, prediction).numpy(force=True),
        }


class Guarded:
    """A network that calls `check` before each iteration."""

    def __init__(self, network: Thinker, check: Callable[[], None]) -> None:
        self._network, self._check = network, check
        self.max_iterations = network.max_iterations
        self.start, self.answer = network.start, network.answer

    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        self._check()
        return self._network.step(features, inputs, iteration)


def _problem(named: ProblemOfCard, trusted: tuple[str, ...]) -> base.Problem:
    """The problem of a card, which anybody may have written: an import path needs a package that is trusted."""
    package = re.split("[.:]", named.name)[0]
    if ":" in named.name and package not in trusted:
        raise ModelError(f"the problem {named.name!r} is outside Assay", f"add {package!r} to models.trusted to use it")
    return problem(named.name, **named.options)


def _together(works: Sequence[Work]) -> Tensor:
    """The inputs of all works, on the CPU."""
    arrays = [work.inputs for work in works]
    return torch.from_numpy(np.concatenate(arrays) if len(arrays) > 1 else arrays[0])


def _over(rule: Rule, settled: Tensor) -> bool:
    return isinstance(rule, Unchanged) and bool(settled.all())
