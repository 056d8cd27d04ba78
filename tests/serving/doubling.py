"""A kind of model that only tests have: it doubles numbers, and an attack on it flips their signs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from service.models import CardDraft, ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest, Scalar, check_parameters
from serving.http.settings import Attacks
from serving.http.tensors import Array
from serving.kinds.base import Endpoint, Example
from serving.kinds.work import Answer, AttackCost, Attacked, AttackWork, Rendering, Stopped, Work


class Double(nn.Module):
    """The architecture."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, numbers: Tensor) -> Tensor:
        return self.factor * numbers


@dataclass(frozen=True)
class NumbersUpload:
    """A file of one byte a number, as if it were sound."""

    medium: ClassVar[str] = "audio"

    input: str = "numbers"

    def memory(self, body: bytes) -> int:
        return len(body)

    def read(self, body: bytes) -> Array:
        return np.frombuffer(body, np.uint8).astype(np.float32)[None]


@dataclass(frozen=True)
class FlipWork(AttackWork):
    outputs: ClassVar[tuple[str, ...]] = ("flipped", "queries", "gradients")

    numbers: Array
    rendering: Rendering | None = None

    @property
    def rows(self) -> int:
        return len(self.numbers)

    @property
    def cost(self) -> AttackCost:
        return AttackCost(1, 1e-9)

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        return {"attack": "flip"}

    def compute(self, stopped: Stopped) -> Attacked:
        counts = np.zeros(self.rows, np.int64)
        return Attacked({"flipped": -self.numbers, "queries": counts, "gradients": counts}, ())


class Doubling(Endpoint):
    """The kind."""

    task: ClassVar[str] = "doubling"
    actions: ClassVar[tuple[str, ...]] = ("infer", "infer_stream", "attack")
    upload = NumbersUpload()

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name="doubles", datatype="FP32", shape=(-1, -1)),)

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        return Example(file="numbers.wav", media_type="audio/wav")

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        check_parameters(parameters, ())
        return Work(inputs["numbers"], inputs["numbers"].shape[1:], None)

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        with torch.no_grad():
            return [{"doubles": self.network(torch.tensor(work.inputs)).numpy()} for work in works]

    def stream(self, work: Work) -> Iterator[tuple[str, Answer]]:
        yield "answer", self.compute([work], lambda: False)[0]

    def prepare_attack(self, request: InferRequest, form: Form, limits: Attacks) -> AttackWork:
        return FlipWork(request.inputs["numbers"])


CARD = CardDraft(
    architecture="tests.serving.doubling:Double",
    arguments={},
    study="none",
    task="doubling",
    inputs=(TensorSpec(name="numbers", datatype="FP32", shape=(-1, -1)),),
    outputs=(),
    settings={},
    metrics={},
    description="",
)
