"""The model store: weights as safetensors and a card that says what they are. Versions are never changed.

    <store>/models/<name>/<version>/   model.safetensors  card.json

A version exists if its card does: the card is written last. Neither file is trusted when it is read: nothing is
unpickled, sizes are checked before they are believed, and a card can only name architectures of Assay's own or of
packages that whoever loads it has said to trust.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from service import json_text
from service.errors import FieldError, ModelError, ModelNotFoundError, SpecError, first_line, nearest, shown
from service.store import Folder

if TYPE_CHECKING:  # torch takes seconds to load, which proxies and the commands that list models can spare
    from torch import Tensor, nn

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
WRAPPERS = ("module", "_orig_mod")
"""the members in which DataParallel and DistributedDataParallel, and torch.compile, keep the network itself"""
WEIGHTS, CARD = "model.safetensors", "card.json"
MAX_HEADER = 64 << 20
TRIES = 100  # other publishers of the same name that may come first

Plain = Annotated[dict[str, Any], BeforeValidator(json_text.plain)]
"""what JSON can hold, as it gives it back"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Part):
    """A tensor of a model in the words of the Open Inference Protocol. shape: -1 is free; the batch comes first."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class CardDraft(_Part):
    """What a job says of a model that it saves."""

    architecture: str = Field(description="module:name of what builds the network")
    arguments: Plain = Field(description="keywords for the architecture, as JSON")
    study: str = Field(description="the study that made it")
    task: str = Field(description="what it does, which decides how it is served: thinking, classification, …")
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    settings: Plain = Field(description="what the study needs to use it, as JSON")
    metrics: dict[str, float] = Field(description="what was measured of it")
    description: str


class ModelCard(CardDraft):
    """The card of a model in the store."""

    name: str
    version: int = Field(gt=0)
    created: str
    parameters: int = Field(ge=0, description="numbers in the weights")
    bytes: int = Field(ge=0, description="size of the weights file")
    sha256: str
    run: str | None = Field(description="the run that made it")


def check_name(name: str, field: str = "the name of a model", hint: str | None = None) -> None:
    """FieldError about a name that no model of the store may have. field: what a spec calls it."""
    if not NAME.fullmatch(name):
        raise FieldError(field, "be up to 63 lower-case letters, digits, dots and dashes", name, hint)


def publish(
    store: Folder, name: str, state: "dict[str, Tensor]", draft: CardDraft, run: str | None = None
) -> ModelCard:
    """Put a model into the store as the next version of `name`. ModelError if its weights are not finite.

    What a run has published before, the same weights and draft, is there once: its card is returned.
    """
    import safetensors.torch

    check_name(name)
    _check_finite(state, f"model {name!r}")
    # cloned: safetensors refuses tensors that share memory, as tied weights do
    data = safetensors.torch.save({key: tensor.detach().cpu().clone().contiguous() for key, tensor in state.items()})
    digest = hashlib.sha256(data).hexdigest()
    folder = store / "models" / name
    if run is not None:
        for card in _cards(folder, name):
            if (card.run, card.sha256) == (run, digest) and _as_draft(card) == _as_draft(draft):
                return card
    version = max(_versions(folder), default=0)
    for _ in range(TRIES):
        version += 1
        if (folder / str(version)).create(WEIGHTS, data):  # whoever creates the weights owns the version
            break
    else:
        raise ModelError(f"model {name!r}: no free version after {version}")
    card = ModelCard(
        **draft.model_dump(),
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parameters=sum(tensor.numel() for tensor in state.values()),
        bytes=len(data),
        sha256=digest,
        run=run,
    )
    (folder / str(version)).write_json(CARD, card.model_dump())
    return card


def list_models(store: Folder) -> list[ModelCard]:
    """The cards of all models, by name and version. A version whose card is damaged is left out."""
    return [card for name in _names(store) for card in _cards(store / "models" / name, name)]


def parse_reference(text: str) -> tuple[str, int | None]:
    """NAME -> (name, None), NAME/VERSION -> (name, version). SpecError if the version is not a number from 1 on."""
    name, slash, version = text.partition("/")
    if slash and not VERSION.fullmatch(version):
        raise SpecError(f"model {text!r}: {version!r} is not a version", hint="write NAME or NAME/VERSION, as in net/3")
    return name, int(version) if slash else None


def find(store: Folder, name: str, version: int | None = None) -> ModelCard:
    """The card of a model, the newest version by default. ModelNotFoundError names the nearest that exists."""
    known = _names(store)
    if name not in known:
        raise ModelNotFoundError(f"no model {shown(name)}", hint=nearest(name, known))
    folder = store / "models" / name
    complete = versions(store, name)
    if not complete or (version is not None and version not in complete):
        asked = "" if version is None else f" version {version}"
        raise ModelNotFoundError(f"model {name!r} has no{asked or ' version'}", hint=f"it has {complete}")
    return _card(folder, name, complete[-1] if version is None else version)


def versions(store: Folder, name: str) -> list[int]:
    """The versions of a model that have a card, oldest first."""
    folder = store / "models" / name
    return [version for version in _versions(folder) if (folder / str(version)).exists(CARD)]


def load(store: Folder, card: ModelCard, trusted: tuple[str, ...] = ()) -> "nn.Module":
    """The network of a card with its weights, in evaluation mode, on the CPU.

    trusted: top-level packages besides Assay's own whose architectures may be built. ModelError, one sentence, if
    anything about the files or the architecture is not as the card says.
    """
    weights = _weights(store, card)
    network = _network(card, trusted)
    expected = network.state_dict()
    weights = plain_names(weights, expected)
    if missing := sorted(expected.keys() - weights.keys()):
        raise ModelError(f"{_named(card)}: the weights lack {missing[0]!r} and {len(missing) - 1} more")
    if extra := sorted(weights.keys() - expected.keys()):
        raise ModelError(f"{_named(card)}: the weights hold {extra[0]!r}, which {card.architecture} has not")
    for key, tensor in expected.items():
        if tensor.shape != weights[key].shape or tensor.dtype != weights[key].dtype:
            stored, needed = _kind(weights[key]), _kind(tensor)
            raise ModelError(f"{_named(card)}: {key!r} is {stored}, but {card.architecture} needs {needed}")
    network.load_state_dict(weights)
    return network.eval()


def check(store: Folder, card: ModelCard, trusted: tuple[str, ...] = ()) -> None:
    """ModelError if a card and the size of its weights already say that the model cannot be loaded: it is not read."""
    _check_size(store, card)
    _network(card, trusted)


def unwrapped(network: "nn.Module") -> "nn.Module":
    """A network without the wrappers around it and around its parts: DataParallel, DistributedDataParallel and
    torch.compile. They change no result, but can neither be copied nor pickled, and change the names of the weights.
    """
    while (inner := _inside(network)) is not None:
        network = inner
    if getattr(network, "_compiled_call_impl", None) is not None:  # compiled in place
        network._compiled_call_impl = None
    for name, part in network._modules.items():
        if part is not None and (inner := unwrapped(part)) is not part:
            setattr(network, name, inner)
    return network


def plain_names(weights: "Mapping[str, Tensor]", expected: Collection[str]) -> "dict[str, Tensor]":
    """Weights by the names that a network expects, without what wrappers have added to them."""
    names = {_plain(name): name for name in expected}
    renamed = {
        name if name in expected else names.get(_plain(name), _plain(name)): tensor for name, tensor in weights.items()
    }
    return renamed if len(renamed) == len(weights) else dict(weights)


def format_of(data: bytes) -> str:
    """What a file is that should hold safetensors, by its first bytes, in words."""
    begin = data[:64].lstrip()
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return "a pickled checkpoint"
    if begin.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, which stands for the file"
    if begin.startswith(b"<"):
        return "a web page"
    if data.startswith(b"\x89HDF\r\n"):
        return "an HDF5 file"
    if data.startswith(b"\x1f\x8b"):
        return "a gzip archive"
    return "truncated or damaged" if data else "empty"


def _inside(network: "nn.Module") -> "nn.Module | None":
    """What a wrapper is around; None if the network is no wrapper."""
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(network, nn.DataParallel | DistributedDataParallel):
        inner: nn.Module = network.module
        return inner
    # the compiler takes seconds to load, and where it is not there, nothing is compiled
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    if compiler is not None and isinstance(network, compiler.OptimizedModule):
        inner = network._orig_mod
        return inner
    return None


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _network(card: ModelCard, trusted: tuple[str, ...]) -> "nn.Module":
    """The network of a card with any weights."""
    from torch import nn

    build = _architecture(card, trusted)
    try:
        network = build(**card.arguments)
    except Exception as error:  # whatever a stranger's arguments make an architecture raise
        raise ModelError(f"{_named(card)}: {card.architecture} refuses its arguments: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{_named(card)}: {card.architecture} builds a {type(network).__name__}, not a torch module")
    return unwrapped(network)


def _check_size(store: Folder, card: ModelCard) -> None:
    if (size := (store / "models" / card.name / str(card.version)).size(WEIGHTS)) != card.bytes:
        raise ModelError(f"{_named(card)}: the weights file has {size:,} bytes, the card says {card.bytes:,}")


def _weights(store: Folder, card: ModelCard) -> "dict[str, Tensor]":
    import safetensors.torch

    _check_size(store, card)
    data = (store / "models" / card.name / str(card.version)).read(WEIGHTS)
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MAX_HEADER, len(data) - 8) or data[8:9] != b"{":
        raise ModelError(f"{_named(card)}: {WEIGHTS} is {format_of(data)}, not safetensors")
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise ModelError(f"{_named(card)}: the weights are not those that the card was written for (sha256 differs)")
    try:
        weights = safetensors.torch.load(data)
    except Exception as error:  # whatever a stranger's file makes the libraries raise
        raise ModelError(f"{_named(card)}: the weights cannot be read: {first_line(error)}") from error
    _check_finite(weights, _named(card))
    return weights


def _check_finite(weights: "Mapping[str, Tensor]", place: str) -> None:
    """ModelError, which begins with the place, if a number of the weights is not finite."""
    import torch

    for key, tensor in weights.items():
        eight_bits = tensor.is_floating_point() and tensor.itemsize == 1  # of which torch does not ask it
        if not bool(torch.isfinite(tensor.float() if eight_bits else tensor).all()):
            raise ModelError(f"{place}: the weights {key!r} are not finite")


def _architecture(card: ModelCard, trusted: tuple[str, ...]) -> Any:
    path, _, name = card.architecture.partition(":")
    package = path.split(".")[0]
    if package != "jobs" and package not in trusted:
        raise ModelError(
            f"{_named(card)}: its architecture {card.architecture!r} is outside Assay",
            hint=f"say that you trust the package {package!r} to use it",
        )
    try:
        module = importlib.import_module(path)
    except (ImportError, ValueError) as error:
        raise ModelError(f"{_named(card)}: cannot import {path!r}: {error}") from error
    # of our own modules only what they list can be built: a card must not call just any function
    build = getattr(module, "ARCHITECTURES", {}).get(name) if package == "jobs" else getattr(module, name, None)
    if not callable(build):
        raise ModelError(f"{_named(card)}: {path!r} has no architecture {name!r}")
    return build


def _card(folder: Folder, name: str, version: int) -> ModelCard:
    place = f"model {name!r} version {version}"
    if not (folder / str(version)).exists(CARD):
        raise ModelError(f"{place} has no card")
    try:
        card = ModelCard.model_validate(json_text.loads((folder / str(version)).read(CARD)))
    except (ValidationError, ValueError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ModelError(f"{place}: its card is damaged: {reason}") from error
    if (card.name, card.version) != (name, version):
        raise ModelError(f"{place}: its card is that of {_named(card)}")
    return card


def _cards(folder: Folder, name: str) -> Iterator[ModelCard]:
    """Those of all versions of a model. One that is damaged is left out: `find` says what is wrong with it."""
    for version in _versions(folder):
        with suppress(ModelError):
            yield _card(folder, name, version)


def _as_draft(card: CardDraft) -> str:
    """What the job said of it, as text: NaN is not equal to itself."""
    return card.model_dump_json(include=set(CardDraft.model_fields))


def _names(store: Folder) -> list[str]:
    """The names of all models. Whatever else lies beside their folders is none."""
    return [name for name in (store / "models").folders() if NAME.fullmatch(name)]


def _versions(folder: Folder) -> list[int]:
    return sorted(int(name) for name in folder.names() if VERSION.fullmatch(name))


def _named(card: ModelCard) -> str:
    return f"model {card.name!r} version {card.version}"


def _kind(tensor: "Tensor") -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
