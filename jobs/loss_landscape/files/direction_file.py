"""Directions as a safetensors file that says around which weights they were made, so that no other model takes them."""

import json
from collections.abc import Mapping, Sequence

import safetensors
import safetensors.torch
from torch import Tensor

from jobs.common.models.directions import complete
from jobs.common.models.weights import Direction, digest
from service.errors import InputError

FORMAT = "assay directions 1"
MAX_HEADER = 64 << 20


def encode(axes: Sequence[Direction], weights: Mapping[str, Tensor], made: str) -> bytes:
    """Axes x and perhaps y as bytes. made: how, in words."""
    tensors = {
        f"{name}/{key}": tensor.contiguous()
        for name, axis in zip("xy", axes, strict=False)
        for key, tensor in axis.items()
    }
    return safetensors.torch.save(tensors, {"format": FORMAT, "model": digest(weights), "made": made})


def decode(data: bytes, weights: Mapping[str, Tensor], where: str) -> list[Direction]:
    """The axes in the bytes of a file. InputError, naming `where`, if they are not directions around these weights."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise InputError(
            f"{where} is not a safetensors file", hint="a run saves its own as files/directions.safetensors"
        )
    try:
        said = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} cannot be read as safetensors: {error}") from error
    if said.get("format") != FORMAT:
        raise InputError(f"{where} does not hold directions of a loss landscape")
    if said.get("model") != digest(weights):
        raise InputError(
            f"{where} is stale: its directions were made around other weights than those of this model",
            hint="directions fit one model only; make new ones, or name the model that they were made for",
        )
    axes: dict[str, Direction] = {}
    for key, tensor in tensors.items():
        axis, _, name = key.partition("/")
        axes.setdefault(axis, {})[name] = tensor
    if sorted(axes) not in (["x"], ["x", "y"]):
        raise InputError(f"{where} must hold the axis x, or x and y; it holds {', '.join(sorted(axes)) or 'none'}")
    return [complete(axes[axis], weights) for axis in sorted(axes)]
