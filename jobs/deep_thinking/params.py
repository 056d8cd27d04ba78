"""What a spec of the study says."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

import torch
from pydantic import Field, JsonValue, model_validator

from jobs.common.estimation import measured_once
from jobs.common.imports import name_of
from jobs.common.models.architectures import ArchitectureParams
from jobs.common.models.cards import PublishingParams
from jobs.common.models.fit import check_answer
from jobs.common.params import StudyParams
from jobs.common.training.optimizers import device_of
from jobs.deep_thinking.evaluation import EvaluationParams
from jobs.deep_thinking.networks import ARCHITECTURES, Thinker, network
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.problems.base import Problem
from jobs.deep_thinking.training import TrainingParams
from service.errors import FieldError, InputError, within


class ProblemParams(StudyParams):
    """The problem that the network is to solve."""

    name: str = Field("prefix_sums", description="prefix_sums, mazes, or an import path mypackage.module:build")
    options: dict[str, JsonValue] = Field({}, description="the problem's own options, e.g. {scale: 1} for mazes")

    def build(self) -> Problem:
        """InputError if there is no such problem or it refuses its options."""
        return problem(self.name, **self.options)


class NetworkParams(ArchitectureParams):
    """The network."""

    catalogue = "jobs.deep_thinking.networks"

    name: Annotated[str, name_of(ARCHITECTURES, "network")] = Field(
        "dt_net_1d",
        description="dt_net_1d, dt_net_2d, feed_forward_1d, feed_forward_2d, or an import path mypackage.module:build, "
        "which is called with channels and its options",
    )
    width: int = Field(48, ge=2, le=4096, description="channels of the features; built-in networks only")
    recall: bool = Field(True, description="show the inputs again at every iteration; built-in networks only")
    group_norm: bool = Field(False, description="normalise after each convolution; built-in networks only")
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of a network of your own")
    weights: str | None = Field(
        None,
        min_length=1,
        description="path of a safetensors file that the network begins with, by its own names or those of the code "
        "released with Bansal et al. 2022; with training.data.updates 0 it is tested as it is; none: fresh weights",
    )

    def arguments(self, channels: int, iterations: int) -> dict[str, Any]:
        """What the architecture is called with. iterations: how deep a feed-forward network is."""
        if not self.built_in:
            return {"channels": channels, **self.options}
        built_in = {"channels": channels, "width": self.width, "recall": self.recall, "group_norm": self.group_norm}
        return built_in | ({"max_iterations": iterations} if self.name.startswith("feed_forward") else {})

    def build(self, solved: Problem, iterations: int) -> Thinker:
        """The network with fresh weights from torch's global generator. InputError if it refuses its arguments."""
        return network(self.name, **self.arguments(solved.channels, iterations))


class Params(PublishingParams):
    """One network, trained on one problem and tested beyond what it was trained on."""

    problem: ProblemParams = Field(ProblemParams(), description="the problem to solve")
    network: NetworkParams = Field(NetworkParams(), description="the network that solves it")
    training: TrainingParams = Field(TrainingParams(), description="what it learns from, and how")
    evaluation: EvaluationParams = Field(description="what it is tested on")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """The problem has these sizes, and the network can read it."""
        if self.network.built_in and self.network.options:
            requirement = (
                f"be empty for {self.network.name}, whose width, recall and group_norm are fields of their own"
            )
            raise FieldError("network.options", requirement, self.network.options)
        try:
            with within("problem.options"):
                solved = self.problem.build()
            for field, size in self._sizes():
                with within(field.rpartition(".")[0]):
                    solved.check_size(size)
            if self.network.built_in:
                check_built_in(self.problem, self.network, self.training.size, self.training.iterations)
            else:
                self.build_network(solved)  # whether it reads the problem is seen when the run starts
        except FieldError:
            raise
        except (InputError, TypeError) as error:
            raise ValueError(str(error)) from error
        return self

    def _sizes(self) -> Iterator[tuple[str, int]]:
        """Every size of instances, and its field."""
        yield "training.size", self.training.size
        for index, each in enumerate(self.evaluation.sizes):
            yield f"evaluation.sizes.{index}.size", each.size
        if self.evaluation.show is not None:
            yield "evaluation.show.size", self.evaluation.show.size

    def build_network(self, solved: Problem) -> Thinker:
        """The network with fresh weights from torch's global generator."""
        return self.network.build(solved, self.training.iterations)

    @property
    def name_parts(self) -> tuple[str, ...]:
        recall = "recall" if self.network.recall else "plain"
        return (
            self.problem.name,
            "feed_forward" if self.network.name.startswith("feed_forward") else "",
            recall if self.network.built_in else self.network.name,
            "progressive" if self.training.alpha > 0 else "",
        )


@measured_once
def check_built_in(problem: ProblemParams, network: NetworkParams, size: int, iterations: int) -> None:
    """As `check_fit`, of a network of ours, once for all trials of a sweep that have it."""
    solved = problem.build()
    with torch.device("meta"):  # shapes alone: the widest network takes no memory
        check_fit(network.build(solved, iterations), solved, size, network.name)


def check_fit(net: Thinker, solved: Problem, size: int, name: str) -> None:
    """InputError, one sentence, unless the network answers an instance with two logits a position."""
    inputs, targets = solved.sample(size, 1, 0)
    data = f"{solved.name} ({solved.dimensions}-D, {solved.channels} channels)"
    net.eval()
    device = device_of(net)

    def forward() -> Any:
        logits, _ = net(inputs.to(device), 1)
        return logits

    check_answer(forward, (1, 2, *targets.shape[1:]), name, data)
