"""Weights of the user's own: a safetensors file, by the names of a network or by those of the papers' code.

What is taken off names: what wrappers add (`module.`, `_orig_mod.`), and a beginning that all of them share, as that of
a checkpoint (`state_dict.`) or of the part that the network was (`model.`). Counters of batch norm may lack. Nothing is
unpickled.

A network whose weights have been released under other names has a method `released_layers`: these names of its layers,
in its own order.
"""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from jobs.common.models.weights import check_alike, check_finite
from service.errors import InputError
from service.models import MAX_HEADER, WRAPPERS, format_of, plain_names

CONVERSION = (
    "import torch; from safetensors.torch import save_file; "
    "saved = torch.load('old.pt', map_location='cpu', weights_only=True); "
    "keys = ('state_dict', 'model_state_dict', 'model', 'net', 'weights'); "
    "state = next((saved[key] for key in keys if isinstance(saved.get(key), dict)), saved); "
    "save_file({name: each.detach().clone().contiguous() for name, each in state.items() if torch.is_tensor(each)}, "
    "'new.safetensors')"
)
COUNTER = "num_batches_tracked"


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights of a file into a network.

    InputError, one sentence, if the file is not there, is not safetensors, is damaged, or belongs to another
    architecture, or if a weight is NaN or infinite.
    """
    where = f"weights file {str(path)!r}"
    state = network.state_dict()
    weights = _named(_read(path, where), network)
    weights |= {name: each for name, each in state.items() if name.endswith(COUNTER) and name not in weights}
    check_alike(state, weights, where)
    check_finite({name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}, where)
    with torch.no_grad():  # half precision becomes what the network computes in
        network.load_state_dict({name: weights[name].to(tensor.dtype) for name, tensor in state.items()})


def released_names(network: nn.Module) -> dict[str, str]:
    """The names of a network's state by those of the code released with the paper; empty if they are the same.

    Source: `released_layers` of the network, or of the one behind its normalisation.
    """
    names: Callable[[], Iterator[str]] | None
    for part, prefix in ((network, ""), (getattr(network, "network", None), "network.")):
        names = getattr(part, "released_layers", None)
        if names is not None:
            own = [name for name in network.state_dict() if name.startswith(prefix)]
            layers = dict.fromkeys(name.rpartition(".")[0] for name in own)
            released = dict(zip(layers, names(), strict=True))
            return {f"{released[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": name for name in own}
    return {}


def _read(path: Path, where: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MAX_HEADER, len(data) - 8) or data[8:9] != b"{":
        form = format_of(data)
        hint = f'convert it where you trust it: python -c "{CONVERSION}"' if "pickled" in form else None
        raise InputError(f"{where} must be safetensors; it is {form}", hint)
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{where} is damaged: {error}") from error
    return weights


def _named(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights by the names of the network's state, if theirs are those or the released ones but for what is added."""
    state = network.state_dict()
    theirs = _bare([name for name in weights if not name.endswith(COUNTER)])
    for known in ({name: name for name in state}, released_names(network)):
        ours = _bare([name for name in known if not name.endswith(COUNTER)])
        if theirs.keys() == ours.keys() and len(theirs) > 0:
            named = {known[ours[bare]]: weights[name] for bare, name in theirs.items()}
            return {name: _of_shape(tensor, state[name].shape) for name, tensor in named.items()}
    return plain_names(weights, state)


def _bare(names: Collection[str]) -> dict[str, str]:
    """Names by what is left without wrappers and without the beginning that all of them share."""
    parts = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in names}
    shared = len(os.path.commonprefix([part[:-1] for part in parts.values()]))
    return {".".join(part[shared:]): name for name, part in parts.items()}


def _of_shape(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The same numbers, where shapes differ by sides of 1 alone: a convolution of strings is one of images here."""
    alike = [side for side in tensor.shape if side != 1] == [side for side in shape if side != 1]
    return tensor.reshape(shape) if alike else tensor
