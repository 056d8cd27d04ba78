"""The wall around the kinds of models: nothing else names one, and a new one is served when it is in the table."""

import ast
import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from service.models import publish
from service.store import open_store
from serving.app import greeting
from serving.deployments.attack_server import AttackServer, Reply
from serving.deployments.batching import Item
from serving.deployments.server import Server
from serving.http.settings import Models, ServeSettings
from serving.kinds import KINDS
from tests.serving.doubling import CARD, Double, Doubling

SERVING = Path(__file__).parents[2] / "serving"
OUTSIDE = [file for file in sorted(SERVING.rglob("*.py")) if SERVING / "kinds" not in file.parents]
OPEN_MODULES = {"serving.kinds", "serving.kinds.base", "serving.kinds.work"}
PROTOCOL_WORDS = '("classification", "shared_memory_region")'  # parameters of an output in the protocol


@pytest.mark.parametrize("file", OUTSIDE, ids=lambda file: str(file.relative_to(SERVING)))
def test_no_kind_is_named_outside_of_the_kinds(file: Path) -> None:
    """Neither its task, nor its class, nor its module; in code, docstrings and comments."""
    text = file.read_text().replace(PROTOCOL_WORDS, "()")
    for task, kind in KINDS.items():
        for name in (task, kind.__name__, kind.__module__.rpartition(".")[2]):
            assert not re.search(rf"\b{name}", text), name
    imported = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert {module for module in imported if module.startswith("serving.kinds")} <= OPEN_MODULES


@pytest.mark.parametrize("file", sorted((SERVING / "http").glob("*.py")), ids=lambda file: file.name)
def test_what_speaks_http_knows_no_model(file: Path) -> None:
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    modules = {f"{node.module}.{name.name}" for node in nodes for name in node.names}
    assert not [module for module in modules if module.startswith(("serving.kinds", "serving.deployments"))]


class AttackHandle:
    """The deployment that attacks, in this process, as the handle of Serve offers it."""

    def __init__(self, server: AttackServer) -> None:
        self._server = server
        self.attack = self

    async def remote(self, *arguments: Any) -> Reply:
        return await self._server.attack(*arguments)


def request(path: str, body: bytes, content_type: str = "application/json") -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST" if body else "GET", "path": path, "headers": headers, "query_string": b""}
    return Request(scope, receive)


def test_a_new_kind_is_a_module_and_a_line_in_the_table(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata, inference from tensors and from a file, a stream, an attack and the greeting."""
    monkeypatch.setitem(KINDS, Doubling.task, Doubling)
    monkeypatch.setattr(os, "nice", lambda by: by)
    store = open_store(store_uri)
    card = publish(store, "twice", Double().state_dict(), CARD)
    settings = ServeSettings(models=Models(trusted=("tests",)))
    tensor = {"name": "numbers", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -3]}
    body = json.dumps({"inputs": [tensor]}).encode()

    async def test() -> None:
        server = Server(settings, store_uri, AttackHandle(AttackServer(settings, store_uri)))  # type: ignore[arg-type]

        async def gather(item: Item) -> None:
            server._batcher.add([item])  # Serve would collect the requests of a moment first, which needs a replica

        monkeypatch.setattr(server, "_gather", gather)

        async def ask(path: str, body: bytes = b"", content_type: str = "application/json") -> Any:
            response = await server(request(f"/v2/models/twice{path}", body, content_type))
            if isinstance(response, StreamingResponse):
                return b"".join([bytes(chunk) async for chunk in response.body_iterator])  # type: ignore[arg-type]
            return json.loads(bytes(response.body))

        metadata = await ask("")
        assert metadata["platform"] == "assay_doubling"
        assert metadata["parameters"]["actions"] == ["infer", "infer_stream", "attack"]
        assert metadata["outputs"] == [{"name": "doubles", "datatype": "FP32", "shape": [-1, -1]}]
        assert (await ask("/infer", body))["outputs"][0]["data"] == [3, -6]
        assert (await ask("/infer", b"\1\2\3", "audio/wav"))["outputs"][0]["data"] == [2, 4, 6]
        assert "takes no files of type image/png" in (await ask("/infer", b"\1", "image/png"))["error"]
        assert (await ask("/infer_stream", body)).startswith(b"event: answer\ndata: {")
        attacked = await ask("/attack", body)
        assert attacked["outputs"][0]["data"] == [-1.5, 3] and attacked["parameters"] == {"attack": "flip"}

    asyncio.run(test())
    assert "twice/infer' --data-binary @numbers.wav -H 'Content-Type: audio/wav'" in greeting(settings, [card])
