"""Whether a network fits the data that it is to work on, seen on one input before hours of computing."""

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.training.optimizers import device_of
from service.errors import InputError, first_line

PASSES = 8  # of one input: a network that draws one of two members answers alike in 1 of 128 cases
DIFFERENCE = 1e-4  # between two passes, relative: rounding of a GPU stays below, an order of sums that is not fixed


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
    except Exception as error:  # whatever a network of the user's own raises
        raise InputError(f"network {name!r} does not fit {data}: {first_line(error)}") from error


def check_answer(forward: Callable[[], Any], shape: tuple[int | None, ...], name: str, data: str) -> Tensor:
    """What a network answers to data. InputError, one sentence, unless all passes give the same float32 logits.

    forward: a pass over data, in evaluation mode. shape: of the logits; None: any length. name, data: as above.
    """
    with first_pass(name, data):
        logits = check_logits(forward(), shape, name, data)
        for _ in range(PASSES - 1):
            again = forward()
            if not (logits.is_meta or torch.allclose(logits, again, DIFFERENCE, DIFFERENCE, equal_nan=True)):
                raise InputError(
                    f"network {name!r} must answer the same input alike in evaluation mode; it is random, or keeps "
                    "something from one pass to the next"
                )
    return logits


def check_logits(logits: Any, shape: tuple[int | None, ...], name: str, data: str) -> Tensor:
    """A network's answer to data. InputError, one sentence, unless it is a float32 tensor of this shape."""
    text = "(" + ", ".join("any" if side is None else str(side) for side in shape) + ")"
    if not isinstance(logits, Tensor):
        answer = type(logits).__name__
    elif len(logits.shape) != len(shape) or any(
        side not in (None, length) for side, length in zip(shape, logits.shape, strict=True)
    ):
        answer = str(tuple(logits.shape))
    elif logits.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"network {name!r} must answer {data} with logits in float32; they are in "
            f"{str(logits.dtype).removeprefix('torch.')}"
        )
    else:
        return logits
    raise InputError(f"network {name!r} must answer {data} with logits of shape {text}; they are {answer}")


def check_fit(network: nn.Module, images: ImageSet, name: str, own_classes: bool = False) -> None:
    """InputError, one sentence, unless the network maps these images to logits of their classes.

    own_classes: they may be of other classes.
    """
    network.eval()
    device = device_of(network)

    def forward() -> Any:
        return network(images.images(torch.arange(1)).to(device))

    check_answer(forward, (1, None if own_classes else len(images.classes)), name, described(images))


def check_sendable(network: nn.Module, name: str) -> None:
    """InputError, one sentence, unless the network can be copied and sent to the processes that compute cells."""
    try:
        _MemberPickler(_Nowhere(), protocol=5).dump(network)
    except Exception as error:  # whatever a member raises that is asked for its state
        raise InputError(
            f"network {name!r} must be of members that can be sent to other processes: {first_line(error)}"
        ) from error


class _Nowhere(io.RawIOBase):
    """Where what is only tried is written to."""

    def write(self, data: Any) -> int:
        return len(data)


class _MemberPickler(pickle.Pickler):
    """Pickles a network without its numbers."""

    def persistent_id(self, value: Any) -> str | None:
        if isinstance(value, Tensor) and not value.is_leaf:
            raise TypeError("a tensor that was computed with a gradient is one of them")
        return "tensor" if isinstance(value, Tensor) else None


def described(images: ImageSet) -> str:
    """A set of images in an error: its name and the size of its images."""
    channels, height, width = images.shape
    return f"{images.name} ({channels} channel{'s' if channels > 1 else ''} of {height}x{width})"
