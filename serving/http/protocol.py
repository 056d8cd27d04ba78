"""Messages of the Open Inference Protocol v2 over REST, with the binary tensor data extension.

    POST /v2/models/{name}[/versions/{version}]/infer
        {"id": "…", "parameters": {…},
         "inputs":  [{"name", "shape", "datatype", "data" | "parameters": {"binary_data_size": bytes}}],
         "outputs": [{"name", "parameters": {"binary_data": true}}]}

With binary tensors the header Inference-Header-Content-Length tells how many bytes of the body are JSON; the tensors
follow, one after another. All functions here are pure; those that parse raise InputError, one sentence.
Source: github.com/kserve/open-inference-protocol (inference_rest.md) and the Triton server's extension_binary_data.md.
"""

import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from service import json_text
from service.errors import InputError, TooLargeError, nearest, shown
from service.models import ModelCard, TensorSpec
from serving.http.headers import size_of, weights
from serving.http.tensors import DATATYPES, Array, as_float, check_shape, datatype_of, from_json, from_raw, to_raw

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_TENSORS = 64
MAX_ID = 256
MAX_INDEX = 1024  # bytes of a request for the index: it is read on the event loop
MAX_NAME = 256  # characters of the name of a tensor: errors repeat it
PART = 1 << 14  # numbers of an answer that are written at once
MAX_MEMBERS = 4096  # of a gzip body
COMPRESSED_PART = 1 << 16  # bytes that are unpacked at once: what follows a member is copied

Json = dict[str, Any]
Scalar = str | int | float | bool
SCALARS = (str, int, float, bool)

# Parameters of any request, besides those of a kind of model. The protocol lets a server ignore the priority and the
# timeout that a client asks for; here both are in the settings. The last answer of a stream is never empty.
COMMON_PARAMETERS = ("binary_data_output", "priority", "timeout", "triton_enable_empty_final_response")


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the client asked for by name."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A request that is well-formed. Whether it fits the model is not checked yet.

    inputs: finite arrays by name. parameters: without those that are about the form of the answer.
    outputs: None stands for all of them, in binary if `all_binary`.
    """

    id: str
    inputs: Mapping[str, Array]
    parameters: Mapping[str, Scalar]
    outputs: tuple[RequestedOutput, ...] | None
    all_binary: bool

    @property
    def output_names(self) -> tuple[str, ...] | None:
        return None if self.outputs is None else tuple(each.name for each in self.outputs)


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before Content-Encoding. TooLargeError before more than `limit` bytes are unpacked.

    A gzip body may have several members, one after another (RFC 1952, section 2.2).
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise InputError(f"Content-Encoding {shown(encoding)} is not supported; use gzip, deflate or none")
    plain, rest = bytearray(), memoryview(body)
    for _ in range(MAX_MEMBERS):
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # | 32: detects whether it is gzip or zlib
        while not unpacker.eof:
            part, rest = rest[:COMPRESSED_PART], rest[COMPRESSED_PART:]
            if not part:
                raise InputError(f"the body is cut off: its {encoding} stream has no end")
            try:
                plain += unpacker.decompress(part, limit + 1 - len(plain))
            except zlib.error as error:
                raise InputError(f"the body is not valid {encoding}") from error
            if len(plain) > limit:
                raise TooLargeError(f"the body unpacks to more than {limit:,} bytes")
        rest = memoryview(body)[len(body) - len(rest) - len(unpacker.unused_data) :]
        if not rest:
            return bytes(plain)
        if encoding == "deflate":
            raise InputError("the body goes on after the end of its deflate stream")
    raise InputError(f"the body must have at most {MAX_MEMBERS:,} gzip members, one after another; it has more")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client reads gzip, by its Accept-Encoding (RFC 9110, section 12.5.3)."""
    accepted = weights(accept_encoding)
    return accepted.get("gzip", accepted.get("*", 0.0)) > 0


def parse_infer(body: bytes, header_length: str | None = None, needs_inputs: bool = True) -> InferRequest:
    """A request from its body.

    header_length: the header of that name, if the body carries binary tensors. needs_inputs: without any it is refused.
    """
    view = memoryview(body)
    length = len(view)
    if header_length is not None:
        stated = size_of(header_length)
        if stated is None or stated > len(view):
            raise InputError(
                f"{HEADER_LENGTH} must be at most {len(view)}, the bytes of the body; it is {shown(header_length)}"
            )
        length = stated
    message = _parse_json(bytes(view[:length]))
    inputs = _parse_inputs(_list(message, "inputs", required=needs_inputs), view[length:])
    parameters = _parameters(message, "the request")
    all_binary = _flag(parameters.pop("binary_data_output", False), "binary_data_output")
    outputs = _list(message, "outputs", required=False)
    request_id = message.get("id", "")
    check_id(request_id)
    requested = tuple(parse_output(output, all_binary) for output in outputs) or None
    for name in COMMON_PARAMETERS:
        parameters.pop(name, None)
    return InferRequest(request_id, inputs, parameters, requested, all_binary)


def check_id(request_id: Any) -> None:
    if not isinstance(request_id, str) or len(request_id) > MAX_ID:
        raise InputError(f"id must be a string of at most {MAX_ID} characters")


def parse_index(body: bytes) -> bool:
    """Whether the body of a request for the index of the repository, which may be empty, asks for ready models only."""
    if len(body) > MAX_INDEX:
        raise TooLargeError(f"the body of a request for the index must have at most {MAX_INDEX:,} bytes; it has more")
    message = _parse_json(body) if body.strip() else {}
    check_parameters(message, ("ready",))
    return _flag(message.get("ready", False), "ready")


def check_parameters(given: Mapping[str, Scalar], known: Iterable[str]) -> None:
    """InputError about the first parameter that the model does not know, with the nearest that it does."""
    known = tuple(known)
    for name in given:
        if name not in known:
            raise InputError(f"unknown parameter {shown(name)}", nearest(name, known))


def fitted(
    inputs: Mapping[str, Array], specs: Sequence[TensorSpec], optional: Sequence[TensorSpec] = ()
) -> dict[str, Array]:
    """The inputs as a model declares them, floats of another width as those that it takes.

    InputError unless they are exactly those, in names, datatypes and shapes. optional: those that may be absent.
    """
    declared = {spec.name: spec for spec in (*specs, *optional)}
    for name in inputs:
        if name not in declared:
            raise InputError(f"unknown input {shown(name)}", nearest(name, declared))
    for spec in specs:
        if spec.name not in inputs:
            raise InputError(f"input {spec.name!r} is missing")
    return {name: _fitted(array, declared[name]) for name, array in inputs.items()}


def _fitted(array: Array, spec: TensorSpec) -> Array:
    dtype = DATATYPES[spec.datatype]
    if array.dtype.kind == dtype.kind == "f":
        array = as_float(spec.name, array, dtype)
    if (datatype := datatype_of(array)) != spec.datatype:
        raise InputError(f"input {spec.name!r}: datatype must be {spec.datatype}; it is {datatype}")
    fits = len(array.shape) == len(spec.shape) and all(
        size == free or free == -1 for size, free in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        raise InputError(f"input {spec.name!r}: shape must be {list(spec.shape)} (-1: any); it is {list(array.shape)}")
    if not array.size:
        raise InputError(f"input {spec.name!r}: shape must have no 0; it is {list(array.shape)}")
    return array


def encode_infer(
    card: ModelCard, request: InferRequest, outputs: Mapping[str, Array], parameters: Mapping[str, Scalar]
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON part if binary tensors follow it.

    parameters: those of the answer.
    """
    requested = {each.name: each.binary for each in request.outputs or ()} or dict.fromkeys(outputs, request.all_binary)
    parts = [_model(card.name, card.version)]
    if request.id:
        parts += [b',"id":', _json(request.id)]
    if parameters:
        parts += [b',"parameters":', _json(dict(parameters))]
    before = b',"outputs":['
    tail: list[bytes] = []
    for name, binary in requested.items():
        array = outputs[name]
        parts += [before, _described(name, datatype_of(array), array.shape)]
        if binary:
            tail.append(to_raw(array))
            parts.append(b',"parameters":{"binary_data_size":%d}}' % len(tail[-1]))
        else:
            parts += [b',"data":[', *_numbers(array), b"]}"]
        before = b","
    head = b"".join([*parts, b"]}"])
    return b"".join([head, *tail]), len(head) if tail else None


@lru_cache(1024)
def _model(name: str, version: int) -> bytes:
    """The beginning of an answer."""
    return _json({"model_name": name, "model_version": str(version)})[:-1]


@lru_cache(1024)
def _described(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of an output."""
    return _json({"name": name, "datatype": datatype, "shape": shape})[:-1]


def _json(value: Any) -> bytes:
    return json_text.dumps(value, marked=False, separators=(",", ":")).encode()


def _numbers(array: Array) -> Iterator[bytes]:
    """The numbers of an array in JSON, a part at a time, so that other threads run between two parts."""
    flat = array.ravel()
    for start in range(0, len(flat), PART):
        values = flat[start : start + PART].tolist()
        text = repr(values)[1:-1].replace(" ", "").lower()  # as JSON has them, but for NaN and infinity
        yield (b"," if start else b"") + (_json(values)[1:-1] if "n" in text else text.encode())


def check_outputs(request: InferRequest, known: Iterable[str]) -> None:
    """InputError about the first requested output that the model does not have, or that was named before."""
    if not (names := request.output_names):
        return
    known = tuple(known)
    for place, name in enumerate(names):
        if name not in known:
            raise InputError(f"unknown output {shown(name)}", nearest(name, known))
        if name in names[:place]:  # it would be written as often as it is named
            raise InputError(f"output {name!r} is asked for twice")


def _parse_json(text: bytes) -> Json:
    try:
        message = _DECODER.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"the body is not valid JSON: {error}") from error
    except ValueError as error:
        raise InputError(f"a number must have at most {sys.get_int_max_str_digits():,} digits; one has more") from error
    except RecursionError as error:
        raise InputError("the body is not valid JSON: nested too deeply") from error
    if not isinstance(message, dict):
        raise InputError("the body must be a JSON object")
    return message


def _no_constant(name: str) -> float:
    raise InputError(f"the body is not valid JSON: {name} is not a number that JSON has")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)  # json.loads makes one anew each time


def _list(message: Json, field: str, *, required: bool) -> list[Json]:
    value = message.get(field, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InputError(f"{field} must be a list of objects")
    if required and not value:
        raise InputError(f"{field} is missing")
    if len(value) > MAX_TENSORS:
        raise InputError(f"{field} must have at most {MAX_TENSORS} tensors; it has {len(value)}")
    return value


def _parameters(holder: Json, owner: str) -> dict[str, Any]:
    value = holder.get("parameters", {})
    if not isinstance(value, dict) or not all(isinstance(each, SCALARS) for each in value.values()):
        raise InputError(f"parameters of {owner} must map names to strings, numbers or booleans")
    return dict(value)


def check_name(name: Any, kind: str) -> str:
    """The name of a tensor. kind: "input" or "output". InputError if it is none."""
    if not isinstance(name, str) or not name:
        raise InputError(f"an {kind} has no name")
    if len(name) > MAX_NAME:
        raise InputError(f"the name of an {kind} must have at most {MAX_NAME} characters; it is {shown(name)}")
    return name


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"parameter {name!r} must be true or false")
    return value


def _parse_inputs(described: list[Json], raw: memoryview) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    taken = 0
    for each in described:
        name = check_name(each.get("name"), "input")
        if name in inputs:
            raise InputError(f"input {name!r} is given twice")
        shape = check_shape(name, each.get("shape"))
        parameters = _parameters(each, f"input {name!r}")
        size = parameters.get("binary_data_size")
        if "shared_memory_region" in parameters:
            raise InputError(f"input {name!r}: shared memory is not supported; send the tensor with the request")
        if size is None and "data" not in each:
            raise InputError(f"input {name!r} has no data")
        if size is None:
            inputs[name] = from_json(name, each["data"], each.get("datatype"), shape)
            continue
        if "data" in each:
            raise InputError(f"input {name!r} has data in JSON and in binary; send one of the two")
        if type(size) is not int or size < 0 or taken + size > len(raw):
            raise InputError(
                f"input {name!r}: binary_data_size must be at most {len(raw) - taken}, the bytes that are left; "
                f"it is {shown(size)}"
            )
        inputs[name] = from_raw(name, raw[taken : taken + size], each.get("datatype"), shape)
        taken += size
    if taken != len(raw):
        raise InputError(f"the last {len(raw) - taken} bytes of the body belong to no input by its binary_data_size")
    return inputs


def parse_output(output: Json, all_binary: bool) -> RequestedOutput:
    """An output as a client asks for it. all_binary: whether it is binary if it does not say."""
    name = check_name(output.get("name"), "output")
    parameters = _parameters(output, f"output {name!r}")
    for unsupported in ("classification", "shared_memory_region"):
        if unsupported in parameters:
            raise InputError(f"output {name!r}: {unsupported} is not supported")
    return RequestedOutput(name, _flag(parameters.get("binary_data", all_binary), "binary_data"))
