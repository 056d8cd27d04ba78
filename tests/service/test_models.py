"""The model store: versions that never change, and files of strangers that are never believed or run."""

import json
import math
import pickle
import threading
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from service import models
from service.errors import AssayError, ModelError, ModelNotFoundError, SpecError
from service.models import CARD, WEIGHTS, CardDraft
from service.store import Folder, open_store

TRUSTED = ("tests",)
DRAFT = CardDraft(
    architecture="tests.service.walk:linear",
    arguments={"size": 3},
    study="walk",
    task="walking",
    inputs=(),
    outputs=(),
    settings={},
    metrics={"height": 1.0},
    description="a line",
)


@pytest.fixture
def store(any_store_uri: str) -> Folder:
    return open_store(any_store_uri)


@pytest.fixture
def local(store_uri: str) -> Folder:
    return open_store(store_uri)


def put(store: Folder, name: str = "line", **changes: Any) -> models.ModelCard:
    state = {"weight": torch.tensor([[1.0, 2.0, 3.0]])}
    return models.publish(store, name, state, DRAFT.model_copy(update=changes), run="a-run")


def test_versions_are_counted_and_kept(store: Folder) -> None:
    first = put(store)
    second = models.publish(store, "line", {"weight": torch.zeros(1, 3)}, DRAFT)
    assert (first.version, second.version) == (1, 2)
    assert (first.parameters, first.run, first.metrics) == (3, "a-run", {"height": 1.0})
    assert models.find(store, "line") == second and models.find(store, "line", 1) == first
    assert models.list_models(store) == [first, second]
    network = models.load(store, first, TRUSTED)
    assert isinstance(network, nn.Linear) and network.weight.tolist() == [[1.0, 2.0, 3.0]] and not network.training


def test_publishers_of_one_name_at_once(local: Folder) -> None:
    threads = [threading.Thread(target=put, args=(local,), kwargs={"description": f"{n}"}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [card.version for card in models.list_models(local)] == list(range(1, 9))


def test_a_version_without_a_card_is_not_there(local: Folder) -> None:
    """As a publisher leaves it that was killed between the two files."""
    put(local)
    (local / "models" / "line" / "2").write(WEIGHTS, b"half")
    assert models.find(local, "line").version == 1
    with pytest.raises(ModelNotFoundError, match=r"has no version 2 \(it has \[1\]\)"):
        models.find(local, "line", 2)
    assert put(local, description="another").version == 3


def test_what_a_run_has_published_is_there_once(local: Folder) -> None:
    card = put(local, metrics={"loss": math.nan})
    assert put(local, metrics={"loss": math.nan}).version == card.version == 1
    assert put(local, metrics={"loss": 1.0}).version == 2
    assert models.publish(local, "line", {"weight": torch.zeros(1, 3)}, DRAFT, run="a-run").version == 3


def test_tied_weights_are_kept(local: Folder) -> None:
    shared = torch.ones(2, 2)
    card = models.publish(local, "tied", {"a": shared, "b": shared, "c": shared.T}, DRAFT)
    data = (local / "models" / "tied" / "1").read(WEIGHTS)
    assert set(safetensors.torch.load(data)) == {"a", "b", "c"} and card.parameters == 12


@pytest.mark.parametrize("name", ["", "UPPER", "../x", "a/b", "-a", "x" * 64, "ü"])
def test_names(local: Folder, name: str) -> None:
    with pytest.raises(SpecError, match="must be up to 63 lower-case letters"):
        put(local, name)
    with pytest.raises(ModelNotFoundError, match="no model"):
        models.find(local, name)


def test_what_else_lies_there_is_no_model(local: Folder) -> None:
    card = put(local)
    for stray in ("models/.DS_Store", "models/notes", "models/line/2", "models/UPPER/1/card.json"):
        local.write(stray, b"")
    assert models.list_models(local) == [card] and models.find(local, "line") == card
    with pytest.raises(ModelNotFoundError, match="no model 'notes'"):
        models.find(local, "notes")
    assert put(local, "line", description="another").version == 3, "what is taken is taken"


def test_unknown_models(local: Folder) -> None:
    put(local)
    with pytest.raises(ModelNotFoundError, match="no model 'lime' .did you mean 'line'"):
        models.find(local, "lime")


def test_weights_that_are_not_finite_are_not_published(local: Folder) -> None:
    with pytest.raises(ModelError, match="the weights 'weight' are not finite"):
        models.publish(local, "line", {"weight": torch.tensor([1.0, float("nan")])}, DRAFT)
    assert models.list_models(local) == [] and local.files() == []


_SHAPE = b'{"weight": {"dtype": "F32", "shape": [0, 1099511627776, 1099511627776], "data_offsets": [0, 0]}}'
WITHOUT_ROOM = len(_SHAPE).to_bytes(8, "little") + _SHAPE


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (pickle.dumps(Bomb(), protocol=2), "a pickled checkpoint, not safetensors"),
        (b"PK\x03\x04" + bytes(100), "a pickled checkpoint, not safetensors"),
        (b"<html>404</html>", "a web page, not safetensors"),
        (b"", "is empty, not safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "truncated or damaged"),
        (safetensors.torch.save({"other": torch.zeros(1, 3)}), "lack 'weight'"),
        (safetensors.torch.save({"weight": torch.zeros(1, 3), "x": torch.zeros(1)}), "hold 'x'"),
        (safetensors.torch.save({"weight": torch.zeros(1, 4)}), r"float32 \(1, 4\), but .* needs float32 \(1, 3\)"),
        (safetensors.torch.save({"weight": torch.zeros(1, 3).double()}), "float64"),
        (safetensors.torch.save({"weight": torch.full((1, 3), torch.inf)}), "not finite"),
        (safetensors.torch.save({"weight": torch.full((1, 3), torch.nan).to(torch.float8_e4m3fn)}), "not finite"),
        (safetensors.torch.save({"weight": torch.zeros(1, 3).to(torch.float8_e4m3fn)}), "float8_e4m3fn"),
        (safetensors.torch.save({"weight": torch.full((1, 3), torch.inf + 0j)}), "not finite"),
        (b"\x02\0\0\0\0\0\0\0{}garbage", "cannot be read"),
        (WITHOUT_ROOM, "cannot be read"),
    ],
)
def test_hostile_weights(local: Folder, weights: bytes, sentence: str) -> None:
    """Even with a card that matches them."""
    card = put(local)
    (local / "models/line/1").write(WEIGHTS, weights)
    import hashlib

    forged = card.model_copy(update={"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()})
    with pytest.raises(ModelError, match=sentence):
        models.load(local, forged, TRUSTED)


def test_weights_that_were_changed(local: Folder) -> None:
    card = put(local)
    folder = local / "models/line/1"
    data = bytearray(folder.read(WEIGHTS))
    data[-1] ^= 1
    folder.write(WEIGHTS, bytes(data))
    with pytest.raises(ModelError, match="sha256 differs"):
        models.load(local, card, TRUSTED)
    folder.write(WEIGHTS, bytes(data) + b"more")
    with pytest.raises(ModelError, match="bytes, the card says"):
        models.load(local, card, TRUSTED)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "os:system", "arguments": {"command": "false"}}, "say that you trust the package 'os'"),
        ({"architecture": "jobs.deep_thinking.job:run"}, "has no architecture 'run'"),
        ({"architecture": "jobs.nowhere:net"}, "cannot import 'jobs.nowhere'"),
        ({"architecture": "tests.service.walk:nothing"}, "has no architecture 'nothing'"),
        ({"architecture": ""}, "outside Assay"),
        ({"arguments": {"sizes": 3}}, "refuses its arguments"),
        (
            {"architecture": "tests.service.test_models:not_a_network", "arguments": {}},
            "builds a int, not a torch module",
        ),
    ],
)
def test_hostile_architectures(local: Folder, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        models.load(local, put(local, **changes), TRUSTED)


def not_a_network() -> int:
    return 3


@pytest.mark.parametrize(
    "card",
    [b"not json", b"[]", b'{"name": "line"}', b"\xff\xfe", b"[" * 100_000, b'{"name": "line", "name": NaN}'],
)
def test_damaged_cards(local: Folder, card: bytes) -> None:
    put(local, "good")
    put(local)
    (local / "models/line/1").write(CARD, card)
    with pytest.raises(ModelError, match="model 'line' version 1: its card is damaged"):
        models.find(local, "line")
    assert [each.name for each in models.list_models(local)] == ["good"], "the others are still there"


def test_a_card_of_another_model(local: Folder) -> None:
    put(local, "one")
    put(local, "two")
    (local / "models/two/1").write(CARD, (local / "models/one/1").read(CARD))
    with pytest.raises(ModelError, match="its card is that of model 'one'"):
        models.find(local, "two")


def test_a_card_with_fields_that_nobody_knows(local: Folder) -> None:
    put(local)
    card = json.loads((local / "models/line/1").read(CARD))
    (local / "models/line/1").write(CARD, json.dumps({**card, "surprise": 1}).encode())
    with pytest.raises(AssayError, match="damaged"):
        models.find(local, "line")
