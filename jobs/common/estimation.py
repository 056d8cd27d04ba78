"""What work costs, before it is done: the sizes of data sets, multiply-adds of networks, seconds on one core."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

KNOWN: dict[str, tuple[tuple[int, int, int], int, int, int]] = {
    "cifar10": ((3, 32, 32), 50_000, 10_000, 10),
    "cifar100": ((3, 32, 32), 50_000, 10_000, 100),
    "mnist": ((1, 28, 28), 60_000, 10_000, 10),
    "fashion_mnist": ((1, 28, 28), 60_000, 10_000, 10),
    "svhn": ((3, 32, 32), 73_257, 26_032, 10),
}
"""shape, training and test images, and classes of sets that may not be there yet"""


@dataclass(frozen=True)
class LayerWork:
    """One convolution or linear layer on one image."""

    macs: int
    numbers: int
    """in its input and its output"""


def layer_work(network: nn.Module, image: Tensor) -> list[LayerWork]:
    """Every convolution, transposed or not, and linear layer, as often as it is called.

    image: (1, channels, height, width), as large as the device of the network: the meta device computes nothing.
    """
    found = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # the first dimension of a weight is that of the output, but of the input in a transposed convolution
        first = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        weight = layer.get_parameter("weight")
        found.append(LayerWork(first.numel() * weight[0].numel(), inputs[0].numel() + output.numel()))

    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        network.eval()(image)
    for hook in hooks:
        hook.remove()
    return found


def least_seconds(work: Callable[[], object], times: int) -> float:
    """The least time of so many, on one thread."""
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
