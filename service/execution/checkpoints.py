"""The state of training as one safetensors file: tensors as tensors, everything else as JSON. Never pickle.

A state is nested dicts (keys: text or whole numbers), lists and tuples of tensors, arrays, numbers, text, bools and
None: what `state_dict()` of modules and optimisers gives, and random generators' states.
"""

import json
import math
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from service.errors import StoreError

_TREE = "assay.tree"


def encode(state: Any, where: str = "state") -> bytes:
    """State -> bytes. TypeError names the place of a value that cannot be kept, as seen from `where`."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, tensors, where)
    metadata = {_TREE: json.dumps(tree)}
    if not tensors:  # cells often return a number: to look for tensors would take longer than all the rest
        return safetensors.serialize({}, metadata)
    return safetensors.torch.save(tensors, metadata)


def decode(data: bytes) -> Any:
    """Bytes -> the same state, on the CPU. StoreError if they are not what `encode` writes."""
    try:
        length = int.from_bytes(data[:8], "little")
        tree = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_TREE])
        return _unpack(tree, safetensors.torch.load(data))
    except Exception as error:  # whatever a stranger's file makes the libraries raise
        raise StoreError(f"a checkpoint is damaged: {type(error).__name__}: {error}") from error


def _pack(value: Any, tensors: dict[str, torch.Tensor], where: str) -> Any:
    """Plain JSON in which a list of a letter and a content stands for everything that JSON lacks."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return ["i", str(value)]
        case float():
            return value if math.isfinite(value) else ["f", str(value)]
        case np.generic():
            return _pack(value.item(), tensors, where)
        case torch.Tensor() | np.ndarray():
            name = str(len(tensors))
            if isinstance(value, np.ndarray):
                # copied: torch takes no array that is read-only or runs backwards
                tensors[name] = torch.from_numpy(np.array(value, order="C"))
                return ["a", name]
            # cloned: safetensors refuses tensors that share memory, as tied weights do
            tensors[name] = value.detach().cpu().clone().contiguous()
            return ["t", name]
        case dict():
            for key in value:
                if isinstance(key, bool) or not isinstance(key, str | int):
                    raise TypeError(f"{where}: the key {key!r} is neither text nor a whole number")
            items = [[key, _pack(inner, tensors, f"{where}.{key}")] for key, inner in value.items()]
            return ["d", items]
        case list() | tuple():
            items = [_pack(inner, tensors, f"{where}[{index}]") for index, inner in enumerate(value)]
            return ["l" if isinstance(value, list) else "u", items]
    raise TypeError(f"{where}: a {type(value).__name__} cannot be kept in a checkpoint")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, list):
        return value
    letter, content = value
    match letter:
        case "i":
            return int(content)
        case "f":
            return float(content)
        case "t":
            return tensors[content]
        case "a":
            return tensors[content].numpy()
        case "d":
            return {key: _unpack(inner, tensors) for key, inner in content}
        case "l":
            return [_unpack(inner, tensors) for inner in content]
        case "u":
            return tuple(_unpack(inner, tensors) for inner in content)
    raise ValueError(f"unknown mark {letter!r}")
