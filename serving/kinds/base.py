"""The base of all kinds of models: what a kind declares, and what a card and its network have to be to be served."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from jobs.common.multiplications import CountMacs
from service.errors import FieldError, InputError, ModelError, first_line, nearest, shown
from service.models import ModelCard, TensorSpec
from service.store import Folder
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest, Scalar
from serving.http.settings import Attacks, ServeSettings, Sonification
from serving.http.tensors import Array
from serving.http.uploads import Upload
from serving.kinds.work import Answer, AttackWork, Stopped, Work

Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True)
class Example:
    """A request for inference to try: either a file of the user's own, or a message in JSON.

    query: parameters in the address. file: its name. media_type: of the file. message: without a file.
    """

    query: str = ""
    file: str = ""
    media_type: str = ""
    message: Mapping[str, Any] | None = None


class Endpoint(ABC):
    """A loaded model. Its class is a kind of model and declares everything about it.

    task: of the cards that it serves. actions: the last parts of its paths, "infer" at least. attacks: those that it
    takes, as `serving.kinds.attack_options` describes them. panel: the module in serving/pages/panels by which a person
    tries it in a browser. upload: how an uploaded file becomes the input; None: files are not taken. store: where other
    models are that a request may name; None: nowhere. `prepare` is cheap; `compute` is called in threads.
    """

    task: ClassVar[str]
    actions: ClassVar[tuple[str, ...]]
    attacks: ClassVar[Mapping[str, Any]] = {}
    panel: ClassVar[str] = "tensors"
    upload: Upload | None = None
    store: Folder | None = None

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        """Raises ModelError if the network does not fit its card. device: where the replica computes."""
        self.card, self.inputs, self.outputs = card, card.inputs, self.outputs_of(card)
        self.network, self.device = network.to(device), device
        self._settings, self._limits = settings, settings.limits

    # ---- of a card, before the model is loaded -----------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        """The outputs of a model with such a card."""

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        """A request to try; None: what to send depends on the model."""
        return None

    @classmethod
    def actions_of(cls, card: ModelCard) -> tuple[str, ...]:
        """Those of the actions that a model with such a card has."""
        return cls.actions

    @staticmethod
    def sonification_of(card: ModelCard, limits: Sonification) -> Mapping[str, Any]:
        """What "sonify" takes, as its module describes it. Of models with that action."""
        return {}

    # ---- inference ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        """The work that a request asks for. InputError if it does not fit the model or goes beyond the limits."""

    @abstractmethod
    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Answers of works with one key, in their order. Raises Abandoned soon after `stopped()` becomes true."""

    def stream(self, work: Work) -> Iterator[tuple[str, Answer]]:
        """(event, answer) pairs as they come, in a thread of its own; the last is what `compute` would answer.

        InputError, before any of them is computed, if they are too many. Of models with the action "infer_stream".
        """
        raise NotImplementedError

    # ---- attacks and sonification ------------------------------------------------------------------------------------

    def prepare_attack(self, request: InferRequest, form: Form, limits: Attacks) -> AttackWork:
        """The attack that a request asks for. InputError as in `prepare`. Of models with the action "attack"."""
        raise NotImplementedError

    def prepare_sonification(self, request: InferRequest, form: Form, limits: Sonification) -> AttackWork:
        """The sound that a request asks for. InputError as in `prepare`. Of models with the action "sonify"."""
        raise NotImplementedError

    # ---- for the kinds -----------------------------------------------------------------------------------------------

    def _check_rows(self, name: str, array: Array) -> None:
        most = self._settings.batching.max_rows
        if len(array) > most:
            raise InputError(f"input {name!r} must have at most {most} rows (batching.max_rows); it has {len(array)}")

    @contextmanager
    def _trial(self, inputs: str) -> Iterator[CountMacs]:
        """Run a network on such inputs inside of it: its multiplications are counted. ModelError if it does not run."""
        try:
            with torch.no_grad(), CountMacs() as counter:
                yield counter
        except Exception as error:  # whatever a network of the user's own raises
            raise ModelError(f"model {self.card.name!r} does not run on {inputs}: {first_line(error)}") from error


def card_settings(card: ModelCard, model: type[Settings]) -> Settings:
    """The settings of a card, as its kind of model needs them. ModelError about the first that is wrong."""
    try:
        return model.model_validate(card.settings)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(["settings", *map(str, first["loc"])])
        raise unusable(card, f"{path}: {first['msg']}") from error


def unusable(card: ModelCard, reason: str) -> ModelError:
    """The error about a card that does not say what its kind of model needs."""
    return ModelError(f"model {card.name!r}: its card does not say how to use it: {reason}")


def split(outputs: Answer, works: Sequence[Work]) -> list[Answer]:
    """The answers of works that were computed together. outputs: (rows of all works, ...)."""
    if len(works) == 1:
        return [outputs]
    ends = list(itertools.accumulate(work.rows for work in works))
    return [
        {name: array[end - work.rows : end] for name, array in outputs.items()}
        for work, end in zip(works, ends, strict=True)
    ]


def choice(name: str, value: Scalar, known: Collection[str], kind: str = "") -> str:
    """A parameter that is one of the known names. InputError with the nearest if it is not. kind: what they name."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"parameter {name!r}: unknown {kind or name} {shown(value)}", nearest(str(value), known))
    return value


def whole_number(name: str, value: Scalar, least: int, most: int) -> int:
    """A parameter that is a whole number in a range. FieldError if it is not."""
    if type(value) is not int or not least <= value <= most:
        raise FieldError(f"parameter {name!r}", f"be a whole number from {least:,} to {most:,}", value)
    return value
