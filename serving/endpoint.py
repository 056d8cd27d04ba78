"""What a kind of model offers to be served, whatever study it comes from."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.models import ModelCard, TensorSpec
from serving.protocol import Scalar
from serving.tensors import Array

Answer = Mapping[str, Array]  # outputs by name; the first axis is the batch
Stopped = Callable[[], bool]


class Abandoned(Exception):
    """Nobody waits for the answer any more. Never reaches a client."""


@dataclass(frozen=True, eq=False)
class Work:
    """A request that was validated against its model and only has to be computed.

    inputs: (rows, ...). key: works of one model with equal keys may be computed as one. ask: how, for the endpoint.
    warning: goes with the answer.
    """

    inputs: Array
    key: Hashable
    ask: Any
    warning: str = ""

    @property
    def rows(self) -> int:
        return len(self.inputs)


class Endpoint(Protocol):
    """A loaded model. `prepare` is cheap; `compute` and `stream` are called in threads of their own."""

    card: ModelCard
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar]) -> Work:
        """The work that a request asks for. InputError if it does not fit the model or goes beyond the limits."""

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Answers of works with one key, in their order. Raises Abandoned soon after `stopped()` becomes true."""

    def stream(self, work: Work) -> Iterator[tuple[str, Answer]]:
        """(event, answer) pairs as they come; the last is what `compute` would answer."""
