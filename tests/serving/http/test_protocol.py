"""Messages: requests as tritonclient makes them, answers as it reads them, and a sentence for whatever is wrong."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InputError, TooLargeError
from service.models import ModelCard, TensorSpec
from serving.deployments.server import _json
from serving.http import metadata, protocol
from serving.http.messages import Message
from serving.http.metadata import Offer
from serving.http.protocol import HEADER_LENGTH, InferRequest, RequestedOutput

SPEC = TensorSpec(name="input", datatype="FP32", shape=(-1, 1, -1))
CARD = ModelCard(
    architecture="", arguments={}, study="deep_thinking", task="thinking", inputs=(SPEC,), outputs=(), settings={},
    metrics={}, description="", name="m", version=3, created="", parameters=0, bytes=0, sha256="", run=None,
)  # fmt: skip
BITS = np.array([[[-0.5, 0.5, 0.5]]], np.float32)


def request_of(client_inputs: list[triton.InferInput], **options: Any) -> InferRequest:
    body, length = triton.InferenceServerClient.generate_request_body(client_inputs, **options)
    return protocol.parse_infer(body, None if length is None else str(length))


def client_input(array: np.ndarray, binary: bool, name: str = "input") -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.mark.parametrize("binary", [True, False])
def test_a_request_of_tritonclient_is_read(binary: bool) -> None:
    requested = [
        triton.InferRequestedOutput("prediction", binary_data=True),
        triton.InferRequestedOutput("verified", False),
    ]
    request = request_of(
        [client_input(BITS, binary), client_input(BITS * 2, not binary, "other")],
        outputs=requested,
        request_id="7",
        parameters={"iterations": 12},
        priority=3,
        timeout=1000,
    )
    np.testing.assert_array_equal(request.inputs["input"], BITS)
    np.testing.assert_array_equal(request.inputs["other"], BITS * 2)
    assert (request.id, request.parameters) == ("7", {"iterations": 12})
    assert request.outputs == (RequestedOutput("prediction", True), RequestedOutput("verified", False))


def test_without_outputs_tritonclient_asks_for_all_in_binary() -> None:
    request = request_of([client_input(BITS, True)])
    assert request.outputs is None and request.all_binary


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.integers(1, 4))
def test_tritonclient_reads_an_answer(binary: list[bool], batch: int) -> None:
    outputs = {
        "prediction": np.arange(batch * 3, dtype=np.int64).reshape(batch, 3),
        "confidence": np.linspace(0, 1, batch, dtype=np.float32),
        "verified": np.arange(batch) % 2 == 0,
    }
    requested = tuple(RequestedOutput(name, flag) for name, flag in zip(outputs, binary, strict=True))
    body, length = protocol.encode_infer(CARD, InferRequest("id", {}, {}, requested, False), outputs, {})
    result = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    for name, array in outputs.items():
        np.testing.assert_array_equal(result.as_numpy(name), array)
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "3", "id")


def test_numbers_that_json_lacks_are_texts() -> None:
    """In outputs, which clients read as numbers, and in the metadata of a model."""
    outputs = {"x": np.array([np.nan, np.inf, -np.inf, 1.5], np.float32)}
    body, length = protocol.encode_infer(CARD, InferRequest("", {}, {}, None, False), outputs, {})
    data = json.loads(body, parse_constant=pytest.fail)["outputs"][0]["data"]
    assert data == ["NaN", "Infinity", "-Infinity", 1.5]
    result = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    np.testing.assert_array_equal(result.as_numpy("x"), outputs["x"])

    card = CARD.model_copy(update={"metrics": {"accuracy": np.nan}, "settings": {"classes": ["NaN", "b"]}})
    answer = _json(metadata.describe_model(card, [3], Offer(card.outputs, ("infer",), {}, {}, "tensors")))
    described = json.loads(bytes(answer.body), parse_constant=pytest.fail)["parameters"]
    assert described["metrics"] == {"accuracy": "NaN"} and described["settings"] == {"classes": ["NaN", "b"]}


def test_long_empty_and_short_outputs_are_written_in_their_places() -> None:
    """Also beside texts that look like what stands in for the numbers of the long ones."""
    odd = '"data":[]'
    outputs = {
        "long": np.arange(protocol.PART + 1),
        odd: np.array([1.5, -2]),
        "empty": np.zeros((2, 0), np.int64),
        "longer": np.arange(2 * protocol.PART + 3) % 2 == 0,
    }
    body, _ = protocol.encode_infer(CARD, InferRequest(odd, {}, {}, None, False), outputs, {"data": odd})
    answer = json.loads(body)
    assert {each["name"]: each["data"] for each in answer["outputs"]} == {
        name: array.ravel().tolist() for name, array in outputs.items()
    }
    assert (answer["id"], answer["parameters"]) == (odd, {"data": odd})


def test_outputs_come_in_the_order_and_number_asked_for() -> None:
    outputs = {"a": np.zeros(1, np.int64), "b": np.ones(1, np.int64)}
    body, length = protocol.encode_infer(
        CARD, InferRequest("", {}, {}, (RequestedOutput("b", False),), True), outputs, {"warning": "w"}
    )
    assert length is None and [each["name"] for each in json.loads(body)["outputs"]] == ["b"]
    assert "id" not in json.loads(body) and json.loads(body)["parameters"] == {"warning": "w"}


def message(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "input", "shape": [1, 1, 3], "datatype": "FP32", "data": [0, 0, 0]}
    return {"inputs": [tensor], **changes}


def tensor(**changes: Any) -> dict[str, Any]:
    made = {**message()["inputs"][0], **changes}
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "a number must have at most 4,300 digits"),
        (b"[]", "must be a JSON object"),
        (b'{"inputs": [{"name": "input", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', "NaN is not a number"),
        (b'{"inputs": [{"name": "input", "shape": [1], "datatype": "FP32", "data": [-Infinity]}]}', "not a number"),
        ({}, "inputs is missing"),
        (message(inputs=[]), "inputs is missing"),
        (message(inputs={}), "inputs must be a list"),
        (message(inputs=[1]), "inputs must be a list of objects"),
        (message(inputs=[tensor()] * 65), "at most 64"),
        (message(inputs=[tensor()] * 2), "'input' is given twice"),
        (message(inputs=[tensor(name=None)]), "an input has no name"),
        (message(inputs=[tensor(name=7)]), "an input has no name"),
        (message(inputs=[tensor(data=None)]), "'input' has no data"),
        (message(inputs=[tensor(shape=None)]), "shape must be a list"),
        (message(inputs=[tensor(parameters={"binary_data_size": 12})]), "in JSON and in binary"),
        (message(inputs=[tensor(data=None, parameters={"binary_data_size": 12})]), "must be at most 0"),
        (message(inputs=[tensor(data=None, parameters={"binary_data_size": -1})]), "it is -1"),
        (message(inputs=[tensor(data=None, parameters={"binary_data_size": True})]), "it is true"),
        (message(inputs=[tensor(parameters={"shared_memory_region": "r"})]), "shared memory is not supported"),
        (message(inputs=[tensor(parameters=[1])]), "parameters of input 'input' must map"),
        (message(parameters={"exit": {}}), "parameters of the request must map"),
        (message(parameters={"binary_data_output": 1}), "must be true or false"),
        (message(outputs=[{"name": "a", "parameters": {"binary_data": "yes"}}]), "must be true or false"),
        (message(outputs=[{"name": "a", "parameters": {"classification": 3}}]), "classification is not supported"),
        (message(outputs=[{}]), "an output has no name"),
        (message(id=7), "id must be a string"),
        (message(id="x" * 257), "at most 256"),
    ],
)  # fmt: skip
def test_what_is_not_a_request_is_refused(body: Any, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        protocol.parse_infer(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert sentence in str(raised.value)


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=5)))
def test_no_bytes_raise_anything_but_a_sentence(body: bytes, length: str | None) -> None:
    with pytest.raises(InputError):
        protocol.parse_infer(body, length)


@pytest.mark.parametrize("length", ["", "-1", "x", "1.5", "²", "1000", "9" * 5000])
def test_a_header_length_that_the_body_does_not_have_is_refused(length: str) -> None:
    with pytest.raises(InputError, match=HEADER_LENGTH):
        protocol.parse_infer(json.dumps(message()).encode(), length)


def test_bytes_that_no_input_claims_are_refused() -> None:
    head = json.dumps(message()).encode()
    with pytest.raises(InputError, match="the last 4 bytes of the body belong to no input"):
        protocol.parse_infer(head + b"1234", str(len(head)))


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"inputs": BITS}, "unknown input 'inputs' (did you mean 'input'?)"),
        ({}, "input 'input' is missing"),
        ({"input": BITS.astype(np.int32)}, "datatype must be FP32; it is INT32"),
        ({"input": np.full((1, 1, 3), 1e300)}, "out of range of FP32"),
        ({"input": BITS[0]}, "shape must be [-1, 1, -1] (-1: any); it is [1, 3]"),
        ({"input": np.zeros((1, 2, 3), np.float32)}, "it is [1, 2, 3]"),
        ({"input": np.zeros((0, 1, 3), np.float32)}, "shape must have no 0"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused(inputs: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        protocol.fitted(inputs, [SPEC])
    assert sentence in str(raised.value)


def test_unknown_parameters_and_outputs_name_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown parameter 'iteration' .did you mean 'iterations'"):
        protocol.check_parameters({"iteration": 3}, ["iterations", "exit"])
    request = InferRequest("", {}, {}, (RequestedOutput("predictions", False),), False)
    with pytest.raises(InputError, match="unknown output 'predictions' .did you mean 'prediction'"):
        protocol.check_outputs(request, ["prediction"])


def test_an_output_is_asked_for_once() -> None:
    """In a body, and in an address, which has room for ten thousand names."""
    twice = [{"name": "a"}, {"name": "b"}, {"name": "a"}]
    posted = protocol.parse_infer(json.dumps(message(outputs=twice)).encode())
    got = Message(b"", "image/png", None, "outputs=a,b,a", "")._of_address({})
    for request in (posted, got):
        with pytest.raises(InputError, match="output 'a' is asked for twice"):
            protocol.check_outputs(request, ["a", "b"])


def test_a_request_for_the_index_is_short() -> None:
    assert not protocol.parse_index(b" ") and protocol.parse_index(b'{"ready": true}')
    with pytest.raises(TooLargeError, match="at most 1,024 bytes"):
        protocol.parse_index(b'{"ready": true}' + b" " * 1024)


def test_compressed_bodies() -> None:
    plain = b"x" * 1000
    assert protocol.decompress(plain, "", 1000) == plain
    assert protocol.decompress(gzip.compress(plain), "gzip", 1000) == plain
    assert protocol.decompress(zlib.compress(plain), "deflate", 1000) == plain
    with pytest.raises(TooLargeError, match="unpacks to more than 999 bytes"):
        protocol.decompress(gzip.compress(plain), "gzip", 999)
    with pytest.raises(TooLargeError):
        protocol.decompress(gzip.compress(b"\0" * 50_000_000), "gzip", 1 << 20)
    with pytest.raises(InputError, match="not valid gzip"):
        protocol.decompress(plain, "gzip", 1000)
    with pytest.raises(InputError, match="cut off"):
        protocol.decompress(gzip.compress(plain)[:-9], "gzip", 1000)
    assert protocol.decompress(gzip.compress(plain[:300]) + gzip.compress(plain[300:]), "GZIP", 1000) == plain
    assert protocol.decompress(gzip.compress(b"") * 3, "gzip", 1000) == b""
    with pytest.raises(TooLargeError, match="more than 999"):
        protocol.decompress(gzip.compress(plain[:300]) + gzip.compress(plain[300:]), "gzip", 999)
    with pytest.raises(InputError, match="not valid gzip"):
        protocol.decompress(gzip.compress(plain) + b"junk", "gzip", 1000)
    with pytest.raises(InputError, match="goes on after the end"):
        protocol.decompress(zlib.compress(plain) + b"junk", "deflate", 2000)
    with pytest.raises(InputError, match="'br' is not supported"):
        protocol.decompress(plain, "br", 1000)
    long = np.random.default_rng(0).bytes(3 * protocol.COMPRESSED_PART)
    packed = gzip.compress(long[:100_000]) + gzip.compress(long[100_000:])
    assert protocol.decompress(packed, "gzip", len(long)) == long


def test_a_body_of_too_many_gzip_members_is_refused() -> None:
    """Each takes twenty bytes when it is empty, and once all that came after it was copied."""
    with pytest.raises(InputError, match="at most 4,096 gzip members"):
        protocol.decompress(gzip.compress(b"") * 5000, "gzip", 1000)


def test_floats_become_those_that_the_model_declares_and_nothing_else_does() -> None:
    labels = TensorSpec(name="labels", datatype="INT64", shape=(-1,))
    made = protocol.fitted({"input": BITS.astype(np.float64), "labels": np.arange(3)}, [SPEC], optional=[labels])
    assert made["input"].dtype == np.float32 and made["labels"].dtype == np.int64
    with pytest.raises(InputError, match="input 'labels': datatype must be INT64; it is FP32"):
        protocol.fitted({"input": BITS, "labels": np.zeros(3, np.float32)}, [SPEC], optional=[labels])


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False), ("gzip", True), ("deflate, GZIP;q=0.5", True), ("gzip;q=0", False), ("*", True), ("br", False),
        ("*;q=0", False), ("gzip;q=x", False), ("identity, *;q=0.1", True),
    ],
)  # fmt: skip
def test_who_reads_gzip(header: str, accepted: bool) -> None:
    assert protocol.accepts_gzip(header) == accepted
