"""What work costs, before it is done: the sizes of data sets, multiply-adds of networks, seconds on one core."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jobs.common.multiplications import CountMacs, LayerWork

KNOWN: dict[str, tuple[tuple[int, int, int], int, int, int]] = {
    "cifar10": ((3, 32, 32), 50_000, 10_000, 10),
    "cifar100": ((3, 32, 32), 50_000, 10_000, 100),
    "mnist": ((1, 28, 28), 60_000, 10_000, 10),
    "fashion_mnist": ((1, 28, 28), 60_000, 10_000, 10),
    "svhn": ((3, 32, 32), 73_257, 26_032, 10),
}
"""shape, training and test images, and classes of sets that may not be there yet"""


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
        took = []
        for _ in range(times):
            began = time.perf_counter()
            work()
            took.append(time.perf_counter() - began)
        return min(took)
    finally:
        torch.set_num_threads(threads)


def multiply_adds(network: nn.Module, image: Tensor) -> int:
    """Of one forward pass of one image (1, channels, height, width), in its convolutions and linear layers."""
    return sum(layer.macs for layer in layer_work(network, image))


TRAINING = 3  # passes of the cost of a forward pass in a training step: the backward pass costs about two


def training_seconds(network: nn.Module, image: Tensor, batch: int = 16) -> float:
    """Forward and backward pass of one image on one core, measured in about a second at most.

    image: (1, channels, height, width). batch: images in the pass, fewer where the network is large.
    """
    count = max(2, min(batch, int(5e8 / multiply_adds(network, image))))  # batch norm needs two
    images = torch.rand(count, *image.shape[1:])
    network.train().requires_grad_(True)

    def passes() -> None:
        network(images).sum().backward()
        network.zero_grad()

    return least_seconds(passes, 2) / count
