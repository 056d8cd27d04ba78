"""A request for inference, an attack or a sonification as HTTP brings it: tensors in the protocol's form, or a file."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.types import Scope

from service.errors import InputError, brief, shown
from serving.http import protocol, traces
from serving.http.headers import Headers, size_of, weights
from serving.http.protocol import InferRequest, RequestedOutput, Scalar
from serving.http.tensors import Array
from serving.http.uploads import PNG_MEDIA, WAV_MEDIA, Upload

JSON_MEDIA = "application/json"
MAX_QUERY = 64  # parameters
TEXTS = ("class", "id", "inputs", "layer", "outputs", "patch", "toward")  # of an address: names, whatever they read as
WHOLE = re.compile(r"-?[0-9]{1,19}")
NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
BYTES_OF_CHARACTER = 10  # of JSON: "0.5," is a number of 24 bytes, a reference of 8 and a float32
BYTES_OF_PARTS = {b"[": 100, b"{": 200, b'"': 25}  # besides: an empty list has 64 bytes, an object 184, a text 80
SHORT = 4 << 10  # bytes of JSON in which they are not worth counting
FILE_MEDIA = ("image", "audio", "video")  # a body of these media is a file, of all others tensors
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")  # the first bytes of PNG, JPEG and WebP
HINT = "an image is sent by curl --data-binary @cat.png -H 'Content-Type: image/png'"


@dataclass(frozen=True)
class Form:
    """The form of an answer, for endpoints that have several.

    outputs: the names of the requested ones; None: the default. png: a picture is accepted. wav: a sound is. uploaded:
    the request was a file.
    """

    outputs: tuple[str, ...] | None = None
    png: bool = False
    wav: bool = False
    uploaded: bool = False


TENSORS = Form()


class Readable(Protocol):
    """A request for inference, however it came, that is not parsed yet. size: bytes. is_file: it has no tensors."""

    @property
    def size(self) -> int: ...

    @property
    def is_file(self) -> bool: ...

    def memory_for(self, upload: Upload | None) -> int:
        """Bytes that it takes at most to read it. upload: how the model reads files."""

    def parse(self, model: str, upload: Upload | None) -> InferRequest:
        """The request, well-formed. InputError if it is not. model: its name."""

    def form(self, request: InferRequest) -> Form:
        """The form of its answer."""


@dataclass(frozen=True)
class Message:
    """The parts of an HTTP request that say what is requested.

    body: decompressed. header_length: of its JSON part, if binary tensors follow it. trace: as in `traceparent`.
    """

    body: bytes
    content_type: str
    header_length: str | None
    query: str
    accept: str
    trace: str = traces.NONE

    @classmethod
    def of(cls, scope: Scope, headers: Headers, body: bytes) -> "Message":
        return cls(
            body,
            headers.get("content-type", "").partition(";")[0].strip().lower(),
            headers.get(protocol.HEADER_LENGTH.lower()),
            _query(scope),
            headers.get("accept", "").lower(),
            traces.trace_of(headers.get(traces.HEADER)),
        )

    @classmethod
    def of_query(cls, scope: Scope, headers: Headers) -> "Message":
        """A request without a body: its address holds what a POST has in JSON."""
        trace = traces.trace_of(headers.get(traces.HEADER))
        return cls(body_from_query(_query(scope)), JSON_MEDIA, None, "", "", trace)

    @property
    def size(self) -> int:
        return len(self.body)

    @cached_property
    def medium(self) -> str:
        """The first half of the media type."""
        return self.content_type.partition("/")[0]

    @cached_property
    def is_file(self) -> bool:
        return self.medium in FILE_MEDIA

    def form(self, request: InferRequest) -> Form:
        """The form of its answer."""
        png, wav = (medium in self.accept and _prefers(self.accept, medium) for medium in (PNG_MEDIA, WAV_MEDIA))
        return Form(request.output_names, png, wav, self.is_file)

    def memory_for(self, upload: Upload | None) -> int:
        """Bytes that it takes at most to read it. upload: how the model reads files."""
        if self.is_file:
            return upload.memory(self.body) if upload and upload.medium == self.medium else len(self.body)
        stated = size_of(self.header_length or "")
        text = len(self.body) if stated is None else min(stated, len(self.body))
        parts = 0
        if text > SHORT:
            parts = sum(size * self.body.count(part, 0, text) for part, size in BYTES_OF_PARTS.items())
        return BYTES_OF_CHARACTER * text + parts + len(self.body)

    def parse(self, model: str, upload: Upload | None, needs_inputs: bool = True) -> InferRequest:
        """The request, well-formed. InputError if it is not, or if the model does not take such a file.

        model: its name. upload: how it reads files; None: not at all. needs_inputs: if not, a request may also have
        parameters alone, in the body or in the address.
        """
        if self.is_file:
            return self._parse_upload(model, upload)
        if self.medium == "multipart":
            raise InputError("a multipart form is not supported", HINT)
        if self.body.startswith(SIGNATURES):
            raise InputError("the body is an image; its content type does not say so", HINT)
        if not (self.body or needs_inputs):
            return self._of_address({})
        if self.query:
            raise InputError("parameters in the address go with an uploaded file; those of tensors go into the body")
        return protocol.parse_infer(self.body, self.header_length, needs_inputs)

    def _parse_upload(self, model: str, upload: Upload | None) -> InferRequest:
        if self.header_length is not None:
            raise InputError(f"{protocol.HEADER_LENGTH} goes with tensors; a file has no JSON before it")
        if upload is None or upload.medium != self.medium:
            medium = "tensors" if upload is None else f"tensors or a file of type {upload.medium}/…"
            raise InputError(f"model {model!r} takes no files of type {brief(self.content_type)}; send {medium}")
        return self._of_address({upload.input: upload.read(self.body)})

    def _of_address(self, inputs: Mapping[str, Array]) -> InferRequest:
        """What the address asks of inputs."""
        parameters = parse_query(self.query)
        names = parameters.pop("outputs", None)
        outputs = None if names is None else tuple(RequestedOutput(name, False) for name in str(names).split(","))
        return InferRequest("", inputs, parameters, outputs, all_binary=False)


def _prefers(accept: str, medium: str) -> bool:
    """Whether a client wants a file of a type, and JSON no more than that."""
    accepted = weights(accept)
    return 0 < accepted.get(medium, 0.0) >= accepted.get(JSON_MEDIA, 0.0)


def _query(scope: Scope) -> str:
    return str(scope["query_string"].decode("latin-1"))


def parse_query(query: str) -> dict[str, Scalar]:
    """Parameters from an address. What reads as a number (`3`, `.1`, `1.`, `1e-3`), true or false is one, but in TEXTS;
    anything else is a string.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_QUERY) if query else []
    except ValueError as error:
        raise InputError(f"the parameters in the address are not of the form name=value&...: {error}") from error
    parameters: dict[str, Scalar] = {}
    for name, text in pairs:
        if name in parameters:
            raise InputError(f"parameter {shown(name)} is given twice")
        parameters[name] = text if name in TEXTS else _scalar(text)
    return parameters


def body_from_query(query: str) -> bytes:
    """The body of a POST that asks for the same as a query: `inputs`, its list in JSON, `outputs`, names with commas
    between them, `id`, and parameters."""
    parameters = parse_query(query)
    if "inputs" not in parameters:
        raise InputError("parameter 'inputs' is missing: the list of the inputs in JSON, as in the body of a POST")
    try:
        inputs = json.loads(str(parameters.pop("inputs")))
    except (ValueError, RecursionError) as error:
        raise InputError("parameter 'inputs' is not valid JSON") from error
    message: dict[str, Any] = {"inputs": inputs}
    if "id" in parameters:
        message["id"] = parameters.pop("id")
    if "outputs" in parameters:
        message["outputs"] = [{"name": name} for name in str(parameters.pop("outputs")).split(",")]
    return json.dumps({**message, "parameters": parameters}).encode()


def _scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text
