"""What a kind of model offers to be served, whatever study it comes from."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from service.models import ModelCard, TensorSpec
from serving.http.protocol import Scalar
from serving.http.tensors import Array
from serving.http.uploads import ImageInput

Answer = Mapping[str, Array]  # outputs by name; the first axis is the batch
Stopped = Callable[[], bool]


class Abandoned(Exception):
    """Nobody waits for the answer any more. Never reaches a client."""


@dataclass(frozen=True)
class Form:
    """In which form an answer is wanted, for endpoints that have several.

    wanted: the outputs that were asked for by name; None: the usual ones. png: a picture is accepted. uploaded: the
    request was an image.
    """

    wanted: tuple[str, ...] | None = None
    png: bool = False
    uploaded: bool = False


TENSORS = Form()


@dataclass(frozen=True, eq=False)
class Work:
    """A request that was validated against its model and only has to be computed.

    inputs: (rows, ...). key: works of one model with equal keys may be computed as one. ask: how, for the endpoint.
    warning: goes with the answer. picture: draws the answer as a PNG, where that is wanted in place of tensors.
    """

    inputs: Array
    key: Hashable
    ask: Any
    warning: str = ""
    picture: Callable[[Answer], bytes] | None = None

    @property
    def rows(self) -> int:
        return len(self.inputs)

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """What goes with the answer beside its outputs."""
        return {"warning": self.warning} if self.warning else {}


class Endpoint(Protocol):
    """A loaded model. `prepare` is cheap; `compute` is called in threads of its own.

    actions: what is offered behind the model's path, "infer" at least. image: how an uploaded image becomes the input;
    None: images are not taken.
    """

    actions: ClassVar[tuple[str, ...]]
    card: ModelCard
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    image: ImageInput | None

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        """What a model with such a card will answer, before it is loaded."""

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        """The work that a request asks for. InputError if it does not fit the model or goes beyond the limits."""

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Answers of works with one key, in their order. Raises Abandoned soon after `stopped()` becomes true."""


class Streaming(Endpoint, Protocol):
    """A model whose actions hold "infer_stream"."""

    def stream(self, work: Work) -> Iterator[tuple[str, Answer]]:
        """(event, answer) pairs as they come, in a thread of its own; the last is what `compute` would answer."""
