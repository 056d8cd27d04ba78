"""What a client sent is not sent back at length: whatever is wrong with it, an error repeats its beginning."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.errors import nearest
from service.store import open_store
from serving.http.settings import ServeSettings
from tests.serving import in_process
from tests.serving.models import put, put_classifier, put_recogniser, put_segmenter
from tests.serving.songs import excerpt, put_songs

LONG = "evil" * 1000
LONGEST = 500  # characters of a sentence with its hint
PIXELS = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
COLOUR = {"name": "images", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [0.5] * 192}
BITS = {"name": "input", "datatype": "FP32", "shape": [1, 1, 2], "data": [0.5, -0.5]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    store = open_store(str(tmp_path_factory.mktemp("echo") / "store"))
    put(store, "sums")
    put_classifier(store, "digits")
    put_segmenter(store, "ground")
    put_recogniser(store, "words")
    put_songs(store, "tunes")
    yield TestClient(in_process.application(ServeSettings(), store.uri), base_url="http://localhost/v2/models/")


def asked(*inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **more}


SOUND = {"name": "sounds", "datatype": "FP32", "shape": [1, 16_000], "data": excerpt(0, 0).tolist()}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("digits/attack", asked(PIXELS, parameters={"epsilon": 0.1, "attack": LONG})),
        ("digits/attack", asked(PIXELS, parameters={"epsilon": 0.1, "norm": LONG})),
        ("digits/attack", asked(PIXELS, parameters={"epsilon": LONG})),
        ("digits/attack", asked(PIXELS, parameters={"epsilon": 0.1, "steps": 10**300})),
        ("digits/attack", asked(PIXELS, parameters={"epsilon": 0.1, "loss": LONG})),
        ("digits/attack", asked(PIXELS, parameters={"epsilon": 0.1, "target": LONG})),
        ("digits/attack", asked(PIXELS, {**PIXELS, "name": LONG[:200]}, parameters={"epsilon": 0.1})),
        ("digits/infer", asked(PIXELS, parameters={LONG: 1})),
        ("digits/infer", asked({**PIXELS, "name": LONG})),
        ("digits/infer", asked({**PIXELS, "name": LONG[:200]})),
        ("digits/infer", asked({**PIXELS, "datatype": LONG})),
        ("digits/infer", asked({**PIXELS, "datatype": {LONG: LONG}})),
        ("digits/infer", asked({**PIXELS, "data": LONG})),
        ("digits/infer", asked({**PIXELS, "parameters": {"binary_data_size": LONG}})),
        ("digits/infer", asked(PIXELS, outputs=[{"name": LONG}])),
        ("digits/infer", asked(PIXELS, outputs=[{"name": LONG[:200]}])),
        ("digits/infer", asked(PIXELS, id=LONG)),
        ("digits/versions/" + LONG + "/infer", asked(PIXELS)),
        (LONG + "/infer", asked(PIXELS)),
        ("digits/" + LONG, asked(PIXELS)),
        ("sums/infer", asked(BITS, parameters={"exit": LONG})),
        ("sums/infer", asked(BITS, parameters={"iterations": LONG})),
        ("ground/infer", asked(COLOUR, parameters={"view": LONG})),
        ("ground/attack", asked(COLOUR, parameters={"epsilon": 0.1, "region": LONG})),
        ("tunes/attack", asked(SOUND, parameters={"epsilon": 0.1, "attack": LONG})),
        ("tunes/attack", asked(SOUND, parameters={"epsilon": 0.1, "norm": LONG})),
        ("words/sonify", asked(parameters={"objective": LONG, "layer": "conv1", "channel": 1})),
        ("words/sonify", asked(parameters={"layer": LONG, "channel": 1})),
        ("words/sonify", asked(parameters={"class": LONG})),
        ("words/sonify", asked(parameters={"layer": "conv1", "channel": 1, "parameterisation": LONG})),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else json.dumps(value)[-60:-20],
)
def test_an_error_repeats_no_more_than_the_beginning(client: TestClient, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json=body)
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert len(error) < LONGEST and error.count("evil") <= 65, error


@pytest.mark.parametrize(
    ("name", "value"),
    [("Content-Type", f"image/{LONG}"), ("Content-Encoding", LONG), ("Inference-Header-Content-Length", LONG)],
    ids=["type", "encoding", "length"],
)
def test_headers_are_not_repeated_either(client: TestClient, name: str, value: str) -> None:
    headers = {"Content-Type": "application/json", name: value}
    answer = client.post("sums/infer", content=json.dumps(asked(BITS)), headers=headers)
    assert 400 <= answer.status_code < 500 and len(answer.json()["error"]) < LONGEST


def test_a_long_name_takes_no_memory_to_find_the_nearest() -> None:
    assert nearest("confidance" + " " * 10_000_000, ["confidence"]) == "known: confidence"
