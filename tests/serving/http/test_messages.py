"""Requests over HTTP: tensors in the body, or an image and its parameters in the address."""

import json
import tracemalloc
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from service.errors import InputError
from serving.http.messages import Message, body_from_query, parse_query
from serving.http.protocol import InferRequest
from serving.http.uploads import ImageUpload
from tests.serving.http.test_uploads import encoded, halves
from tests.serving.models import pixels

UPLOAD = ImageUpload("images", 3, -1, -1, None, 10_000)


def test_an_address_asks_for_the_same_as_a_body() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.5, 1]}
    query = urlencode({"inputs": json.dumps([tensor]), "iterations": 5, "exit": "last", "outputs": "y,z", "id": 7})
    body = {
        "id": "7",
        "inputs": [tensor],
        "parameters": {"iterations": 5, "exit": "last"},
        "outputs": [{"name": "y"}, {"name": "z"}],
    }
    assert json.loads(body_from_query(query)) == body
    assert json.loads(body_from_query(urlencode({"inputs": "[]"}))) == {"inputs": [], "parameters": {}}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "'inputs' is missing"),
        ("inputs=[", "'inputs' is not valid JSON"),
        ("inputs=" + "[" * 20_000, "'inputs' is not valid JSON"),
        ("inputs=5", "inputs must be a list of objects"),
        ("inputs=[NaN]", "NaN is not a number that JSON has"),
        ("inputs=[]&inputs=[]", "given twice"),
    ],
)
def test_an_address_that_asks_for_nothing_is_refused(query: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Message(body_from_query(query), "application/json", None, "", "").parse("m", None)


def message(body: bytes, kind: str = "image/png", query: str = "", accept: str = "*/*") -> Message:
    return Message(body, kind, None, query, accept)


def test_an_image_and_its_parameters() -> None:
    request = message(
        encoded(halves()), query="epsilon=0.03&attack=pgd&random_start=false&outputs=successful,distance"
    ).parse("m", UPLOAD)
    assert request.inputs["images"].shape == (1, 3, 40, 60)
    assert request.parameters == {"epsilon": 0.03, "attack": "pgd", "random_start": False}
    assert request.outputs is not None and [each.name for each in request.outputs] == ["successful", "distance"]


def test_values_in_an_address_are_what_they_read_as() -> None:
    assert parse_query("a=1&b=1.5&c=true&d=x%20y&e=&f=null&g=[1]&h=1e-3&i=%22q%22") == {
        "a": 1, "b": 1.5, "c": True, "d": "x y", "e": "", "f": "null", "g": "[1]", "h": 0.001, "i": '"q"',
    }  # fmt: skip
    assert parse_query("a=.1&b=1.&c=-.5e3&d=NaN&e=Infinity&f=.&g=-&h=1.e2") == {
        "a": 0.1, "b": 1.0, "c": -500.0, "d": "NaN", "e": "Infinity", "f": ".", "g": "-", "h": 100.0,
    }  # fmt: skip
    assert repr(parse_query("a=-3&b=3.0")) == "{'a': -3, 'b': 3.0}"
    assert parse_query("") == {}
    assert parse_query(f"a={'[' * 100_000}")["a"] == "[" * 100_000


@pytest.mark.parametrize(
    ("query", "sentence"),
    [("a", "name=value"), ("a=1&a=2", "'a' is given twice"), ("&".join(f"a{i}=1" for i in range(99)), "name=value")],
)
def test_what_is_no_list_of_parameters_is_refused(query: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_query(query)
    assert sentence in str(raised.value)


def test_what_is_sent_in_the_wrong_way_is_told_the_right_one() -> None:
    with pytest.raises(InputError, match="takes no files of type image/png; send tensors"):
        message(encoded(halves())).parse("m", None)
    with pytest.raises(InputError, match="no files of type audio/wav; send tensors or a file of type image/…"):
        message(b"RIFF", "audio/wav").parse("m", UPLOAD)
    with pytest.raises(InputError, match="^Inference-Header-Content-Length goes with tensors"):
        replace(message(encoded(halves())), header_length="12").parse("m", UPLOAD)
    with pytest.raises(InputError, match="curl --data-binary"):
        message(b"--x", "multipart/form-data").parse("m", UPLOAD)
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": pixels(1).flatten().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert message(body, "application/x-www-form-urlencoded").parse("m", UPLOAD).inputs["images"].shape == (1, 1, 8, 8)
    with pytest.raises(InputError, match="those of tensors go into the body"):
        message(body, "application/json", "epsilon=0.1").parse("m", UPLOAD)
    with pytest.raises(InputError, match=r"is an image; .* -H 'Content-Type: image/png'"):
        message(encoded(halves()), "application/x-www-form-urlencoded").parse("m", UPLOAD)


@pytest.mark.parametrize("stated", [None, "x", "²", "1000", "9" * 5000])
def test_what_a_request_takes_is_bounded_by_its_body_whatever_it_states(stated: str | None) -> None:
    body = replace(message(b"{}", "application/json"), header_length=stated)
    assert body.memory_for(None) == replace(body, header_length="2").memory_for(None)


@pytest.mark.parametrize(
    "part", ["0", "0.5", "[]", "[[]]", "{}", '{"":0}', '{"":{}}', '{"":[]}', '"\u0100"', '"\U0001f600"', "nested"]
)
def test_what_a_body_becomes_is_bounded_before_it_is_parsed(part: str) -> None:
    """Whatever it is made of."""
    if part == "nested":
        part = '{"":' * 100 + "0" + "}" * 100
    body = f'{{"x": [{",".join([part] * (20_000 // len(part)))}]}}'.encode()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="inputs is missing"):
            message(body, "application/json").parse("m", None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < message(body, "application/json").memory_for(None)


@pytest.mark.parametrize("text", ["007", "1e5", "true"])
def test_names_in_an_address_are_texts(text: str) -> None:
    """That of a request comes back, and one of a class or a layer is looked up."""
    assert json.loads(body_from_query(f"inputs=[]&id={text}"))["id"] == text
    assert parse_query(f"class={text}&layer={text}") == {"class": text, "layer": text}


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("image/png", True), ("application/json, image/png", True), ("image/png;q=0.5", True), ("*/*", False),
        ("image/png;q=0", False), ("application/json, image/png;q=0.9", False), ("image/webp, image/apng", False),
    ],
)  # fmt: skip
def test_a_file_comes_back_where_it_is_wanted(accept: str, png: bool) -> None:
    asked = message(b"{}", "application/json", accept=accept)
    assert asked.form(InferRequest("", {}, {}, None, False)).png == png
