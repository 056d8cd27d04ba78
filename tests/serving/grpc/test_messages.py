"""Messages of gRPC become the same requests as those of HTTP, and hostile ones one sentence."""

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferInput, service_pb2

from service.errors import AssayError, InputError
from service.models import ModelCard
from serving.grpc.messages import BYTES_OF_BYTE, CONTENTS, InferMessage, encode_infer
from serving.grpc.wire import fields
from serving.http import protocol
from serving.http.protocol import InferRequest, RequestedOutput
from serving.http.tensors import DATATYPES, Array

Request = service_pb2.ModelInferRequest


def request(**tensor: Any) -> Any:
    """A request with one input."""
    message = Request(model_name="m", model_version="2", id="a")
    message.inputs.add(**{"name": "x", "datatype": "FP32", "shape": [2], **tensor})
    return message


def raw(*contents: bytes, **tensor: Any) -> Any:
    message = request(**tensor)
    message.raw_input_contents.extend(contents)
    return message


def parse(message: Any) -> InferRequest:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return InferMessage.of(data).parse("m", None)


def array_of(datatype: str) -> Array:
    return np.array([[0, 1], [1, 1]], DATATYPES[datatype])


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_tensors_of_every_datatype_are_those_that_were_sent(datatype: str) -> None:
    array = array_of(datatype)
    [(name, result)] = parse(raw(array.tobytes(), datatype=datatype, shape=[2, 2])).inputs.items()
    assert name == "x" and result.dtype == array.dtype and np.array_equal(result, array)


@pytest.mark.parametrize("datatype", CONTENTS)
def test_numbers_of_every_datatype_are_those_that_were_sent(datatype: str) -> None:
    array = array_of(datatype)
    contents = {CONTENTS[datatype]: array.ravel().tolist()}
    result = parse(request(datatype=datatype, shape=[2, 2], contents=contents)).inputs["x"]
    assert result.dtype == array.dtype and np.array_equal(result, array)


def test_bf16_is_read_as_float32() -> None:
    upper_halves = np.array([1.5, -2.0], "<f4").view("<u2")[1::2]
    assert parse(raw(upper_halves.tobytes(), datatype="BF16")).inputs["x"].tolist() == [1.5, -2.0]


def test_a_request_is_the_same_as_over_http() -> None:
    """But for its tensors: they are answered raw."""
    message = raw(np.zeros(2, "<f4").tobytes())
    message.outputs.add(name="y")
    for name, value in {"iterations": 5, "exit": "confidence", "flag": True, "share": 0.5}.items():
        kind = {int: "int64_param", str: "string_param", bool: "bool_param", float: "double_param"}[type(value)]
        setattr(message.parameters[name], kind, value)
    message.parameters["priority"].uint64_param = 3
    body = {
        "id": "a",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [0, 0]}],
        "outputs": [{"name": "y"}],
        "parameters": {
            "iterations": 5,
            "exit": "confidence",
            "flag": True,
            "share": 0.5,
            "priority": 3,
            "binary_data_output": True,
        },
    }
    over_http, over_grpc = protocol.parse_infer(json.dumps(body).encode()), parse(message)
    assert over_grpc.parameters == over_http.parameters and over_grpc.outputs == over_http.outputs
    assert over_grpc.id == over_http.id and over_grpc.all_binary == over_http.all_binary
    assert InferMessage.of(message.SerializeToString()).form(over_grpc).outputs == ("y",)


def test_the_model_and_what_is_raw_are_known_before_the_message_is_parsed() -> None:
    data = raw(bytes(8)).SerializeToString()
    message = InferMessage.of(data)
    assert (message.model, message.version, message.raw, message.size) == ("m", "2", 8, len(data))
    assert message.memory_for(None) == 3 * 8 + BYTES_OF_BYTE * (len(data) - 8)


HOSTILE = {
    "no inputs": (Request(model_name="m"), "inputs is missing"),
    "no name": (raw(bytes(8), name=""), "has no name"),
    "no datatype": (raw(bytes(8), datatype=""), "unknown datatype ''"),
    "texts": (request(datatype="BYTES", contents={"bytes_contents": [b"a", b"b"]}), "BYTES is not supported"),
    "halves as numbers": (request(datatype="FP16", contents={"fp32_contents": [1, 2]}), "raw_input_contents"),
    "numbers of another type": (request(contents={"int_contents": [1, 2]}), "fp32_contents, not in int_contents"),
    "a number out of range": (request(datatype="UINT8", contents={"uint_contents": [1, 256]}), "out of range of UINT8"),
    "not a number": (raw(np.array([1, np.nan], "<f4").tobytes()), "NaN"),
    "an infinite number": (request(contents={"fp32_contents": [1, np.inf]}), "infinite"),
    "half a boolean": (raw(b"\x02\x00", datatype="BOOL"), "one byte, 0 or 1"),
    "too few bytes": (raw(bytes(7)), "needs 2 elements"),
    "too few numbers": (request(contents={"fp32_contents": [1]}), "data has 1"),
    "no numbers": (request(), "data has 0"),
    "a size below 0": (raw(bytes(8), shape=[-2]), "whole numbers"),
    "sizes that overflow": (raw(bytes(8), shape=[2**31 - 1] * 8), "needs"),
    "a size of 2^62": (raw(bytes(8), shape=[2**62]), "at most"),
    "dimensions": (raw(bytes(8), shape=[1] * 1_000_000), "1 to 8 dimensions"),
    "no dimension": (raw(bytes(4), shape=[]), "1 to 8 dimensions"),
    "raw and numbers": (raw(bytes(8), contents={"fp32_contents": [1, 2]}), "send one of the two"),
    "more raw tensors than inputs": (raw(bytes(8), bytes(8)), "must have 1 tensors"),
    "shared memory": (
        raw(parameters={"shared_memory_region": service_pb2.InferParameter(string_param="r")}),
        "shared memory is not supported",
    ),
    "a parameter without a value": (
        Request(inputs=request().inputs, parameters={"p": service_pb2.InferParameter()}),
        "'p' has none",
    ),
    "a long id": (Request(id="x" * 300, inputs=request().inputs), "at most 256 characters"),
    "another message": (b"\x08\x01", "not valid"),
    "cut off": (raw(bytes(8)).SerializeToString()[:-1], "cut off"),
    "a length of 2^63": (b"\x0a" + b"\xff" * 9 + b"\x01", "cut off"),
    "a number without end": (b"\xff" * 20, "cut off"),
    "no UTF-8": (b"\x0a\x02\xff\xff", "UTF-8"),
    "no message within": (b"\x2a\x02\x0a\xff", "not a valid ModelInferRequest"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_wrong_is_said_in_a_sentence(case: str) -> None:
    message, sentence = HOSTILE[case]
    with pytest.raises(InputError) as refusal:
        parse(message)
    assert sentence in str(refusal.value) and len(str(refusal.value)) < 300


def test_an_input_twice_is_refused() -> None:
    message = raw(bytes(8), bytes(8))
    message.inputs.append(message.inputs[0])
    with pytest.raises(InputError, match="given twice"):
        parse(message)


def test_millions_of_empty_inputs_are_refused_before_any_is_made() -> None:
    with pytest.raises(InputError, match="at most 256"):
        InferMessage.of(b"\x2a\x00" * 4_000_000)


def test_every_cut_and_every_changed_byte_is_a_request_or_a_sentence() -> None:
    data = raw(bytes(8)).SerializeToString()
    changed = [data[:end] for end in range(len(data))]
    changed += [
        data[:place] + bytes([value]) + data[place + 1 :] for place in range(len(data)) for value in (0, 127, 255)
    ]
    for message in changed:
        try:
            assert isinstance(parse(message), InferRequest)
        except AssayError as error:
            assert "\n" not in str(error)


def test_fields_are_in_the_order_of_the_message() -> None:
    assert [(number, bytes(contents)) for number, contents in fields(b"\x0a\x01a\x12\x00")] == [(1, b"a"), (2, b"")]


def test_an_answer_holds_what_was_requested_as_clients_read_it() -> None:
    card = ModelCard.model_construct(name="m", version=3)
    outputs = {"y": np.arange(4).reshape(2, 2), "z": np.array([True, False])}
    asked = InferRequest("a", {}, {}, (RequestedOutput("z", True), RequestedOutput("y", True)), all_binary=True)
    answer = encode_infer(card, asked, outputs, {"warning": "w", "share": 0.5, "count": 2, "flag": True})
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "a")
    assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
        ("z", "BOOL", [2]),
        ("y", "INT64", [2, 2]),
    ]
    assert answer.raw_output_contents[1] == outputs["y"].astype("<i8").tobytes()
    assert answer.parameters["warning"].string_param == "w" and answer.parameters["flag"].bool_param
    assert answer.parameters["count"].int64_param == 2 and answer.parameters["share"].double_param == 0.5
    everything = encode_infer(card, InferRequest("", {}, {}, None, all_binary=True), outputs, {})
    assert [each.name for each in everything.outputs] == ["y", "z"]


def test_a_client_writes_what_is_read() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = InferInput("x", [2, 3], "FP32").set_data_from_numpy(array)
    message = Request(model_name="m", inputs=[tensor._get_tensor()], raw_input_contents=[tensor._get_content()])
    assert np.array_equal(parse(message).inputs["x"], array)
