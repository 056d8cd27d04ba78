"""Networks as others write them, for images (1, 8, 8) of ten classes."""

import random
import threading
from typing import Any

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """A linear network."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Any:
        return self.linear(images.flatten(1))


def plain() -> nn.Module:
    return Plain()


def normalised() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    return network.eval()


def parallel() -> nn.Module:
    return nn.DataParallel(Plain())


def parallel_classifier(classes: int, channels: int) -> nn.Module:
    return parallel()


def compiled_in_place() -> nn.Module:
    network = Plain()
    network.compile()
    return network


def within() -> nn.Module:
    return nn.Sequential(nn.Identity(), torch.compile(nn.DataParallel(Plain())))


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))))


def with_lock() -> nn.Module:
    network = Plain()
    network.lock = threading.Lock()
    return network


def with_function() -> nn.Module:
    network = Plain()
    network.activation = lambda features: features
    return network


def with_computed_tensor() -> nn.Module:
    network = Plain()
    network.doubled = 2 * network.linear.weight
    return network


def weightless() -> nn.Module:
    return Weightless()


class Weightless(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10]


class Tuple(Plain):
    def forward(self, images: Tensor) -> Any:
        return (super().forward(images),)


class Dict(Plain):
    def forward(self, images: Tensor) -> Any:
        return {"out": super().forward(images)}


class TwoInputs(Plain):
    def forward(self, images: Tensor, lengths: Tensor) -> Any:
        return super().forward(images)


class Half(Plain):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).half()


class Asserting(Plain):
    def forward(self, images: Tensor) -> Any:
        raise AssertionError


class OneAtATime(Plain):
    def forward(self, images: Tensor) -> Any:
        if len(images) > 1:
            raise RuntimeError("one image at a time")
        return super().forward(images)


class Infinite(Plain):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images) + torch.inf


class OneOfTwo(Plain):
    """A mixed ensemble, which draws from no generator of torch's."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images) * random.choice((1, -1))
