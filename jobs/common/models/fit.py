"""Whether a network fits the data that it is to work on, seen on one input before hours of computing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from jobs.common.data.images.base import ImageSet
from jobs.common.training.optimizers import device_of
from service.errors import InputError


@contextmanager
def first_pass(name: str, data: str) -> Iterator[None]:
    """Inside, a network sees data for the first time. InputError, one sentence, if it does not take them.

    name: of the network. data: what it is given, in words.
    """
    try:
        with torch.no_grad():
            yield
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"network {name!r} does not fit {data}: {str(error).splitlines()[0]}") from error


def check_shape(logits: Any, shape: tuple[int, ...], name: str, data: str) -> None:
    """InputError, one sentence, unless a network's answer to data is a tensor of this shape."""
    answer = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if answer != shape:
        raise InputError(f"network {name!r} must answer {data} with logits of shape {shape}; they are {answer}")


def check_fit(network: nn.Module, images: ImageSet, name: str) -> None:
    """InputError, one sentence, unless the network maps these images to logits of their classes."""
    data = described(images)
    with first_pass(name, data):
        logits = network.eval()(images.images(torch.arange(1)).to(device_of(network)))
    check_shape(logits, (1, len(images.classes)), name, data)


def described(images: ImageSet) -> str:
    """A set of images in an error: its name and the size of its images."""
    channels, height, width = images.shape
    return f"{images.name} ({channels} channel{'s' if channels > 1 else ''} of {height}x{width})"
