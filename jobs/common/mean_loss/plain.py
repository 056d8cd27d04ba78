"""Mean losses and accuracies over a whole set, by the network as it is written, in float32: what is not hurried."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.mean_loss.samples import Samples, normalised
from jobs.common.mean_loss.scores import plain_scores
from service.errors import RunFailedError
from service.run import Run, reserved_device

PART = 2000  # images in a cell


@dataclass(frozen=True)
class PlainEvaluation:
    """A network, states of it, and images. states: tensors that replace the network's own, by their names."""

    network: nn.Module
    states: Sequence[dict[str, Tensor]]
    samples: Samples
    loss: str


class MeanScore(NamedTuple):
    """Over all images. accuracy: a share in [0, 1]. NaN if a cell failed."""

    loss: float
    accuracy: float


def score_of(network: nn.Module, images: ImageSet, loss: str, run: Run, name: str) -> MeanScore:
    """The score of a network with its own weights, over all images of a set. RunFailedError if a cell failed."""
    count = len(images)
    cells = [[first, min(first + PART, count)] for first in range(0, count, PART)]
    results = run.map(part_of_set, cells, shared=WholeSet(network, images, loss), name=name)
    if failed := sum(result is None for result in results):
        raise RunFailedError(f"{failed} of {len(results)} cells of {name!r} failed, without which there is no loss")
    sums = np.zeros(2)
    for result in results:
        sums += (result["loss"], result["right"])
    loss_of_all, accuracy = sums / count
    return MeanScore(float(loss_of_all), float(accuracy))


@dataclass(frozen=True)
class WholeSet:
    """A network and a set of images that need not fit into memory."""

    network: nn.Module
    images: ImageSet
    loss: str

    @cached_property
    def bare(self) -> nn.Module:
        """The network without its normalisation: one for all parts that a worker computes."""
        return normalised(self.network, self.images, torch.arange(1))[0]

    def part(self, first: int, end: int) -> PlainEvaluation:
        """The images first..end-1."""
        _, samples = normalised(self.network, self.images, torch.arange(first, end))
        return PlainEvaluation(self.bare, [{}], samples, self.loss)


def part_of_set(cell: list[int], whole: WholeSet) -> dict[str, float]:
    """A cell: the sums over images first..end-1."""
    first, end = cell
    return part_of_scores([0, 0, end - first], whole.part(first, end))


def mean_scores(evaluation: PlainEvaluation, run: Run, name: str, part: int = PART) -> list[MeanScore]:
    """The scores of each state. name: of the cells. part: images in a cell."""
    count = len(evaluation.samples.labels)
    starts = range(0, count, part)
    parts = [[state, first, min(first + part, count)] for state in range(len(evaluation.states)) for first in starts]
    results = run.map(part_of_scores, parts, shared=evaluation, name=name)
    sums = np.zeros((len(evaluation.states), 2))
    for (state, _, _), result in zip(parts, results, strict=True):
        sums[state] += (np.nan, np.nan) if result is None else (result["loss"], result["right"])
    return [MeanScore(float(loss), float(accuracy)) for loss, accuracy in sums / count]


def part_of_scores(cell: list[int], evaluation: PlainEvaluation) -> dict[str, float]:
    """A cell: the sums over images first..last-1 at a state of the network."""
    state, first, last = cell
    device = reserved_device()
    scores = plain_scores(
        evaluation.network.eval().to(device),
        {name: tensor.to(device) for name, tensor in evaluation.states[state].items()},
        evaluation.samples.images[first:last].to(device),
        evaluation.samples.labels[first:last].to(device),
        evaluation.loss,
    )
    return {"loss": float(scores.losses.double().sum()), "right": float(scores.right.sum())}
