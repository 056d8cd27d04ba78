"""What work costs, before it is done: the sizes of data sets, multiply-adds of networks, seconds on one core."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from pydantic_core import to_json
from torch import Tensor, nn

from jobs.common.curvature.mean_loss import layer_of
from jobs.common.data.images import DataParams
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.models.network_params import PublishedNetwork
from jobs.common.models.reference import ModelReference
from jobs.common.multiplications import CountMacs, LayerWork
from service.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")

Architecture = ClassifierParams | PublishedNetwork | ModelReference
"""what decides how long a network takes; a reference by import path"""

Shape = tuple[int, int, int]
"""channels, height and width of an image"""


@dataclass(frozen=True)
class SetSize:
    """How much there is of a data set of images."""

    shape: Shape
    train: int
    """images to train with"""
    test: int
    """images to test with"""
    classes: int
    """at least: of a folder that is not there nobody knows"""
    of_class: Mapping[str, int] = field(default_factory=dict)
    """test images of each class; empty where the set is not there"""


KNOWN = {
    "cifar10": SetSize((3, 32, 32), 50_000, 10_000, 10),
    "cifar100": SetSize((3, 32, 32), 50_000, 10_000, 100),
    "mnist": SetSize((1, 28, 28), 60_000, 10_000, 10),
    "fashion_mnist": SetSize((1, 28, 28), 60_000, 10_000, 10),
    "svhn": SetSize((3, 32, 32), 73_257, 26_032, 10),
    "svhn_extra": SetSize((3, 32, 32), 531_131, 26_032, 10),
}
"""those of sets that may not be there yet"""


def size_of(data: DataParams) -> SetSize:
    """The size of a data set within its limits. InputError if the set is not there and nobody knows its size."""
    try:
        train, test = data.load_splits()
        counts = torch.bincount(test.labels, minlength=len(test.classes)).tolist()
        of_class = dict(zip(test.classes, counts, strict=True))
        return SetSize(train.shape, len(train), len(test), len(train.classes), of_class)
    except InputError:
        if data.name in KNOWN:
            known = KNOWN[data.name]
            return replace(known, train=data.train_limit or known.train, test=data.test_limit or known.test)
        if data.name != "image_folder" or data.train_limit is None or data.test_limit is None:
            raise
        return SetSize((3, data.image_size, data.image_size), data.train_limit, data.test_limit, classes=2)


def measured_once(measure: Callable[P, T]) -> Callable[P, T]:
    """A measurement that is made once for the same arguments, so that the trials of a sweep share what they can.

    Its arguments, sections of a spec and plain values, are compared by their content: they hold what the result depends
    on and nothing else.
    """
    results: dict[bytes, T] = {}

    @wraps(measure)
    def once(*arguments: P.args, **options: P.kwargs) -> T:
        key = to_json((arguments, options))
        if key not in results:
            results[key] = measure(*arguments, **options)
        return results[key]

    return once


def untrained(architecture: Architecture, classes: int, channels: int) -> nn.Module:
    """The network in evaluation mode, with weights that do not matter. InputError if it cannot be built."""
    match architecture:
        case ClassifierParams():
            network = architecture.build_for(classes, channels, 0)
        case PublishedNetwork():  # its weights may have to be fetched
            network = architecture.untrained()
        case ModelReference():
            network = architecture.built(0)
    return network.eval()


@dataclass(frozen=True)
class Passes:
    """What the passes of one input through a network cost."""

    forward: int
    """multiply-adds of a forward pass"""
    training: float
    """seconds of a forward and a backward pass on one core"""


@measured_once
def multiply_adds_of(architecture: Architecture, classes: int, shape: Shape) -> int:
    """Of one forward pass of one image. InputError if the network cannot be built."""
    return multiply_adds(untrained(architecture, classes, shape[0]), torch.rand(1, *shape))


@measured_once
def training_seconds_of(architecture: Architecture, classes: int, shape: Shape, batch: int = 16) -> float:
    """As `training_seconds`, on images of a shape. InputError if the network cannot be built."""
    return training_seconds(untrained(architecture, classes, shape[0]), torch.rand(1, *shape), batch)


def layer_work(network: nn.Module, image: Tensor) -> list[LayerWork]:
    """The work of every layer of a network in evaluation mode, in the order of the calls.

    image: (1, channels, height, width), on the device of the network: the meta device computes nothing.
    """
    counter = CountMacs()
    with torch.no_grad(), counter:
        network.eval()(image)
    return counter.layers


def least_seconds(work: Callable[[], object], times: int) -> float:
    """The least time of `times` repetitions, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        durations = []
        for _ in range(times):
            began = time.perf_counter()
            work()
            durations.append(time.perf_counter() - began)
        return min(durations)
    finally:
        torch.set_num_threads(threads)


def multiply_adds(network: nn.Module, image: Tensor) -> int:
    """Of one forward pass of one image (1, channels, height, width), in its convolutions and linear layers."""
    return sum(layer.macs for layer in layer_work(network, image))


@measured_once
def layers_with_weights(architecture: Architecture, classes: int, channels: int) -> int:
    """Layers that have a Hessian of their own: those with a parameter of more than one dimension."""
    parameters = untrained(architecture, classes, channels).named_parameters()
    return len({layer_of(name) for name, each in parameters if each.dim() > 1})


TRAINING = 3  # passes of the cost of a forward pass in a training step: the backward pass costs about two


def training_seconds(network: nn.Module, image: Tensor, batch: int = 16) -> float:
    """Forward and backward pass of one image on one core, measured in about a second at most.

    image: (1, channels, height, width). batch: images in the pass, fewer where the network is large.
    """
    forward = multiply_adds(network, image)
    count = max(2, min(batch, int(5e8 / forward)))  # batch norm needs two
    images = torch.rand(count, *image.shape[1:])
    network.train().requires_grad_(True)

    def passes() -> None:
        network(images).sum().backward()
        network.zero_grad()

    return least_seconds(passes, 1 if forward > 1e9 else 2) / count
