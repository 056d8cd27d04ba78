"""Weights of the user's own: a safetensors file with the names of a network's state. Pickles are refused."""

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from jobs.common.models.weights import check_alike, check_finite
from service.errors import InputError

CONVERT = (
    "convert it where you trust it: "
    "safetensors.torch.save_file(torch.load('old.pt', weights_only=True), 'new.safetensors')"
)
PREFIX = "module."  # that DataParallel puts before each name


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights of a file into a network. The prefix `module.` of all names is taken off.

    InputError, one sentence, if the file is not there, is a pickle, is damaged, or belongs to another architecture, or
    if a weight is NaN or infinite.
    """
    where = f"weights file {str(path)!r}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise InputError(f"{where} is a pickle, which could run anything: it is not opened", hint=CONVERT)
    try:
        weights = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{where} is not safetensors, or damaged: {error}") from error
    state = network.state_dict()
    if all(name.startswith(PREFIX) for name in weights) and not all(name.startswith(PREFIX) for name in state):
        weights = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    check_alike(state, weights, where)
    check_finite({name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}, where)
    with torch.no_grad():
        network.load_state_dict(_as(state, weights))


def _as(state: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the types of a state: half precision becomes what the network computes in."""
    return {name: weights[name].to(tensor.dtype) for name, tensor in state.items()}
