"""The numbers of a network that a direction moves, by the names of its state; which are the same, and their digest."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from service.errors import InputError

Space = Literal["weights", "states"]
"""weights: the parameters. states: also the running statistics of batch norm."""

Place = tuple[nn.Module, str]
"""a module, and the name of a tensor in it"""

Direction = dict[str, Tensor]
"""how tensors of a network move, by their names"""


def places(network: nn.Module, space: Space = "states") -> dict[str, list[Place]]:
    """Where each tensor of a network lies. A tensor that is used twice (tied weights) is there once, under the name
    that comes first; whole numbers, such as the counter of batch norm, are left out.
    """
    names: dict[int, str] = {}
    places: dict[str, list[Place]] = {}
    for name, tensor, place in _tensors(network, space):
        if tensor.is_quantized or tensor.is_complex():
            raise InputError(f"weights {name!r} are {tensor.dtype}: only real, unquantised weights can be moved")
        if tensor.is_floating_point():
            first = names.setdefault(id(tensor), name)
            places.setdefault(first, []).append(place)
    return places


def tensors(network: nn.Module, space: Space = "states") -> dict[str, Tensor]:
    """The tensors that directions of a space move, by their names in `state_dict`, detached; tied ones once."""
    return {name: getattr(*held[0]).detach() for name, held in places(network, space).items()}


def check_finite(weights: Mapping[str, Tensor], what: str) -> None:
    """InputError if a tensor holds NaN or infinity."""
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{what}: the weights {name!r} are not finite")


def check_alike(weights: Mapping[str, Tensor], others: Mapping[str, Tensor], what: str) -> None:
    """InputError, naming the first tensor that differs, if `others` are not of the same architecture."""
    if lacking := [name for name in weights if name not in others]:
        raise InputError(f"{what} is of another architecture: it lacks {lacking[0]!r}")
    if extra := [name for name in others if name not in weights]:
        raise InputError(f"{what} is of another architecture: it has {extra[0]!r} besides")
    for name, tensor in weights.items():
        if tensor.shape != others[name].shape:
            shapes = f"{tuple(others[name].shape)}, not {tuple(tensor.shape)}"
            raise InputError(f"{what} is of another architecture: {name!r} is {shapes}")


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    sha256 = hashlib.sha256()
    for name, tensor in weights.items():
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _tensors(network: nn.Module, space: Space) -> Iterator[tuple[str, Tensor, Place]]:
    for prefix, module in network.named_modules():
        held: dict[str, Tensor | None] = dict(module._parameters)
        if space == "states":
            kept = {name: buffer for name, buffer in module._buffers.items() if buffer is not None}
            held |= {name: kept[name] for name in kept if name not in module._non_persistent_buffers_set}
        for name, tensor in held.items():
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor, (module, name)
