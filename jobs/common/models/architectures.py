"""Networks by name: one of a catalogue, or what an import path builds; and the bounds of their arguments."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field, JsonValue
from torch import nn

from jobs.common.imports import resolve
from jobs.common.params import StudyParams
from service.errors import FieldError, InputError
from service.models import unwrapped

LARGEST = 1 << 14  # of any number that an architecture is called with: a stranger's card may say it


class ArchitectureParams(StudyParams):
    """A network to be built: its name, and what it is called with besides."""

    catalogue: ClassVar[str]
    """the module whose ARCHITECTURES holds the built-in networks"""

    name: str
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of the network")

    @property
    def built_in(self) -> bool:
        return ":" not in self.name

    @property
    def architecture(self) -> str:
        """The import path that a model card names it by."""
        return f"{self.catalogue}:{self.name}" if self.built_in else self.name


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Inside, weights are drawn from the seed; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_network(
    name: str, architectures: Mapping[str, Callable[..., nn.Module]], kind: str, **arguments: Any
) -> nn.Module:
    """A network by its name in a catalogue or by import path. InputError if its arguments are refused.

    kind: what the catalogue holds, for errors.
    """
    build = resolve(name, architectures, kind)
    try:
        network = build(**arguments)
    except TypeError as error:
        raise InputError(f"{kind} {name!r} refuses its arguments {arguments}: {error}") from error
    return own_network(network, f"{kind} {name!r}")


def own_network(built: object, what: str) -> nn.Module:
    """What a function of the user's own has built, without wrappers. InputError if no study can use it."""
    if not isinstance(built, nn.Module):
        raise InputError(f"{what} is a {type(built).__name__}, not a torch module")
    network = unwrapped(built)
    for module in network.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"{what} must be written in Python; it is TorchScript")
    return network


def check_numbers(**arguments: object) -> None:
    """FieldError about the first whole number that is out of the range of all networks."""
    for name, value in arguments.items():
        least = 2 if name == "classes" else 1
        if isinstance(value, int) and not isinstance(value, bool) and not least <= value <= LARGEST:
            raise FieldError(name, f"be from {least} to {LARGEST:,}", value)


def check_colour(channels: int, network: str) -> None:
    """FieldError unless a network for colour images is given three channels."""
    if channels != 3:
        raise FieldError("channels", f"be 3 for {network}", channels)
