"""The wall around the kinds of models: nothing else names one, and a new one is served when it is in the table."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.models import publish
from service.store import open_store
from serving.app import greeting
from serving.http.settings import Models, ServeSettings
from serving.kinds import KINDS
from tests.serving import in_process
from tests.serving.doubling import CARD, Double, Doubling

SERVING = Path(__file__).parents[2] / "serving"
PANELS = SERVING / "pages" / "panels"
WRITTEN = {".py", ".js", ".html", ".css"}
OUTSIDE = [
    file
    for file in sorted(SERVING.rglob("*.*"))
    if file.suffix in WRITTEN and not {SERVING / "kinds", PANELS} & set(file.parents)
]
OPEN_MODULES = {"serving.kinds", "serving.kinds.base", "serving.kinds.work"}
PROTOCOL_WORDS = '("classification", "shared_memory_region")'  # parameters of an output in the protocol


@pytest.mark.parametrize("file", OUTSIDE, ids=lambda file: str(file.relative_to(SERVING)))
def test_no_kind_is_named_outside_of_the_kinds(file: Path) -> None:
    """Neither its task, nor its class, nor its module; in code, docstrings and comments."""
    text = file.read_text().replace(PROTOCOL_WORDS, "()")
    for task, kind in KINDS.items():
        for name in (task, kind.__name__, kind.__module__.rpartition(".")[2]):
            assert not re.search(rf"\b{name}", text), name
    if file.suffix != ".py":
        return
    imported = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert {module for module in imported if module.startswith("serving.kinds")} <= OPEN_MODULES


def test_every_kind_has_its_panel_and_the_page_loads_it_by_name() -> None:
    for kind in (*KINDS.values(), Doubling):
        assert (PANELS / f"{kind.panel}.js").exists(), kind.panel
    text = "".join(file.read_text() for file in OUTSIDE if file.suffix == ".js")
    assert re.findall(r".*panels/.*", text) == ["  const module = await import(`./panels/${panel}.js`);"]


@pytest.mark.parametrize("file", sorted((SERVING / "http").glob("*.py")), ids=lambda file: file.name)
def test_what_speaks_http_knows_no_model(file: Path) -> None:
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    modules = {f"{node.module}.{name.name}" for node in nodes for name in node.names}
    assert not [module for module in modules if module.startswith(("serving.kinds", "serving.deployments"))]


def test_a_new_kind_is_a_module_and_a_line_in_the_table(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata, inference from tensors and from a file, a stream, an attack and the greeting."""
    monkeypatch.setitem(KINDS, Doubling.task, Doubling)
    store = open_store(store_uri)
    card = publish(store, "twice", Double().state_dict(), CARD)
    settings = ServeSettings(models=Models(trusted=("tests",)))
    tensor = {"name": "numbers", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -3]}
    body = json.dumps({"inputs": [tensor]}).encode()

    client = TestClient(in_process.application(settings, store_uri), base_url="http://localhost/v2/models/")

    def ask(action: str, content: bytes, content_type: str = "application/json") -> Any:
        return client.post(f"twice/{action}", content=content, headers={"Content-Type": content_type})

    metadata = client.get("twice").json()
    assert metadata["platform"] == "assay_doubling" and metadata["parameters"]["panel"] == "tensors"
    assert metadata["parameters"]["actions"] == ["infer", "infer_stream", "attack"]
    assert metadata["outputs"] == [{"name": "doubles", "datatype": "FP32", "shape": [-1, -1]}]
    assert ask("infer", body).json()["outputs"][0]["data"] == [3, -6]
    assert ask("infer", b"\1\2\3", "audio/wav").json()["outputs"][0]["data"] == [2, 4, 6]
    assert "takes no files of type image/png" in ask("infer", b"\1", "image/png").json()["error"]
    assert ask("infer_stream", body).text.startswith("event: answer\ndata: {")
    attacked = ask("attack", body).json()
    assert attacked["outputs"][0]["data"] == [-1.5, 3] and attacked["parameters"] == {"attack": "flip"}
    assert "twice/infer' --data-binary @numbers.wav -H 'Content-Type: audio/wav'" in greeting(settings, [card])
