"""Requests that were validated against their model and only have to be computed."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from service.errors import BusyError
from serving.http.protocol import Scalar
from serving.http.tensors import Array

Answer = Mapping[str, Array]  # outputs by name; the first axis is the batch
Stopped = Callable[[], bool]

BYTES_OF_VALUE = 32  # a number of an answer: as float32 and in JSON


class Abandoned(Exception):
    """Nobody waits for the answer any more. Never reaches a client."""


def check_of(stopped: Stopped, seconds: float, late: BusyError) -> Callable[[], None]:
    """To be called before each pass: raises Abandoned when `stopped()` is true, and `late` after so many seconds."""
    deadline = time.monotonic() + seconds

    def check() -> None:
        if stopped():
            raise Abandoned
        if time.monotonic() > deadline:
            raise late

    return check


@dataclass(frozen=True)
class Rendering:
    """An answer as a file, a picture or a sound. media_type: such as "image/png"."""

    media_type: str
    encode: Callable[[Answer], bytes]


@dataclass(frozen=True, eq=False)
class Work:
    """A request for inference.

    inputs: (rows, ...). key: works of one model with equal keys may be computed as one. options: only its kind of model
    reads them. gmacs: 10^9 multiplications that it takes at most. values: numbers in the answer. warning: goes with the
    answer. rendering: where a file is wanted instead of tensors.
    """

    inputs: Array
    key: Hashable
    options: Any
    gmacs: float = 0.0
    values: int = 0
    warning: str = ""
    rendering: Rendering | None = None

    @cached_property
    def rows(self) -> int:
        return len(self.inputs)

    @property
    def memory(self) -> int:
        """Bytes that it holds until it is answered: its inputs, their copy in a batch, and the answer as text."""
        return int(2 * self.inputs.nbytes + BYTES_OF_VALUE * self.values)

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """Those of the answer."""
        return {"warning": self.warning} if self.warning else {}


@dataclass(frozen=True)
class Attacked:
    """The result of an attack. warnings: what to know about it, as why it may flatter the model."""

    answer: Answer
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class AttackCost:
    """What an attack takes at most.

    passes: through the model, forward and back, of each input. gmacs_of_pass: 10^9 multiplications of one pass of all
    inputs; a pass back to the inputs takes as many as one forward.
    """

    passes: int
    gmacs_of_pass: float

    @property
    def gmacs(self) -> float:
        return self.passes * self.gmacs_of_pass


class AttackWork(ABC):
    """A request for inputs that are optimised against the model, an attack, or for it, a sonification.

    outputs: the names of the arrays of its answer, among them "queries" and "gradients": the passes forward and back of
    each input. rendering: where a file is wanted instead of tensors.
    """

    outputs: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def rows(self) -> int: ...

    @property
    @abstractmethod
    def cost(self) -> AttackCost: ...

    @property
    @abstractmethod
    def rendering(self) -> Rendering | None: ...

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Scalar]:
        """All parameters of the attack, also those that had their default."""

    @abstractmethod
    def compute(self, stopped: Stopped) -> Attacked:
        """Calls `stopped` before each pass forward of all inputs, and raises Abandoned when it is true.

        Raises BusyError when the attack takes too long.
        """
