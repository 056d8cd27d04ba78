"""Messages of the Open Inference Protocol v2 over gRPC, read as those over HTTP are.

Tensors come as raw bytes, in raw_input_contents, or as numbers, in the contents of each input. They are answered raw.
Those that parse raise InputError, one sentence.
Source: github.com/kserve/open-inference-protocol (inference_grpc.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2

from service.errors import InputError, shown
from service.models import ModelCard
from serving.grpc.wire import fields
from serving.http import protocol
from serving.http.messages import Form
from serving.http.protocol import MAX_TENSORS, InferRequest, RequestedOutput, Scalar
from serving.http.tensors import MAX_DIMENSIONS, Array, check_shape, datatype_of, dtype_of, from_json, from_raw, to_raw
from serving.http.uploads import Upload

CONTENTS = {  # by the datatype: the field of numbers
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
MAX_FIELDS = 4 * MAX_TENSORS  # inputs, their contents, outputs and parameters
BYTES_OF_BYTE = 32  # of what is not raw: a small number takes one byte there, and so many as an object of Python
NAME, VERSION = (service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name[f"model_{part}"].number
                 for part in ("name", "version"))  # fmt: skip
RAW = service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number


@dataclass(frozen=True)
class InferMessage:
    """A request for inference, of which only the fields are known yet. size: bytes. raw: those of its raw tensors."""

    is_file: ClassVar[bool] = False

    data: bytes
    model: str
    version: str
    raw: int

    @classmethod
    def of(cls, data: bytes) -> "InferMessage":
        texts: dict[int, str] = {}
        raw = 0
        for count, (number, contents) in enumerate(fields(data), 1):
            if count > MAX_FIELDS:
                raise InputError(f"the message must have at most {MAX_FIELDS} inputs, outputs and parameters")
            if number in (NAME, VERSION):
                texts[number] = _text(contents)
            elif number == RAW:
                raw += len(contents)
        return cls(data, texts.get(NAME, ""), texts.get(VERSION, ""), raw)

    @property
    def size(self) -> int:
        return len(self.data)

    def memory_for(self, upload: Upload | None) -> int:
        """Bytes that it takes at most to read it."""
        return 3 * self.raw + BYTES_OF_BYTE * (self.size - self.raw)

    def parse(self, model: str, upload: Upload | None) -> InferRequest:
        """The request, well-formed."""
        message = parse(service_pb2.ModelInferRequest, self.data)
        protocol.check_id(message.id)
        parameters = _parameters(message, "the request")
        for name in ("binary_data_output", *protocol.COMMON_PARAMETERS):
            parameters.pop(name, None)
        described = ({"name": each.name, "parameters": _parameters(each, "an output")} for each in message.outputs)
        outputs = tuple(protocol.parse_output(each, all_binary=True) for each in described) or None
        return InferRequest(message.id, _inputs(message), parameters, outputs, all_binary=True)

    def form(self, request: InferRequest) -> Form:
        """The form of its answer."""
        return Form(request.output_names)


def parse(kind: type[Message], data: bytes) -> Any:
    """A message of a kind."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InputError(f"the message is not a valid {kind.DESCRIPTOR.name}") from error


def encode_infer(
    card: ModelCard, request: InferRequest, outputs: Mapping[str, Array], parameters: Mapping[str, Scalar]
) -> service_pb2.ModelInferResponse:
    """An answer. parameters: those of the answer."""
    requested = request.outputs or tuple(RequestedOutput(name, binary=True) for name in outputs)
    message = service_pb2.ModelInferResponse(
        model_name=card.name, model_version=str(card.version), id=request.id, parameters=_as_messages(parameters)
    )
    for each in requested:
        array = outputs[each.name]
        message.outputs.add(name=each.name, datatype=datatype_of(array), shape=array.shape)
        message.raw_output_contents.append(to_raw(array))
    return message


def _text(contents: memoryview) -> str:
    try:
        return bytes(contents).decode()
    except UnicodeDecodeError as error:
        raise InputError("the message is not valid: a name is not UTF-8") from error


def _parameters(holder: Any, owner: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, parameter in holder.parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InputError(f"parameters of {owner} must have values; {shown(name)} has none")
        values[name] = getattr(parameter, choice)
    return values


def _as_messages(parameters: Mapping[str, Scalar]) -> dict[str, service_pb2.InferParameter]:
    names = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return {name: service_pb2.InferParameter(**{names[type(value)]: value}) for name, value in parameters.items()}


def _inputs(message: Any) -> dict[str, Array]:
    if not message.inputs:
        raise InputError("inputs is missing")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InputError(
            f"raw_input_contents must have {len(message.inputs)} tensors, as many as inputs; it has {len(raw)}"
        )
    inputs: dict[str, Array] = {}
    for place, each in enumerate(message.inputs):
        name = protocol.check_name(each.name, "input")
        if name in inputs:
            raise InputError(f"input {name!r} is given twice")
        if "shared_memory_region" in each.parameters:
            raise InputError(f"input {name!r}: shared memory is not supported; send the tensor with the request")
        shape = check_shape(name, list(each.shape[: MAX_DIMENSIONS + 1]))
        if not raw:
            inputs[name] = _from_contents(each, shape)
        elif each.HasField("contents"):
            raise InputError(f"input {name!r} has contents, and there are raw ones; send one of the two")
        else:
            inputs[name] = from_raw(name, memoryview(raw[place]), each.datatype, shape)
    return inputs


def _from_contents(tensor: Any, shape: tuple[int, ...]) -> Array:
    """The numbers of an input."""
    name, datatype = tensor.name, tensor.datatype
    dtype_of(name, datatype)
    if datatype not in CONTENTS:
        raise InputError(f"input {name!r}: {datatype} must be sent in raw_input_contents")
    field = CONTENTS[datatype]
    _check_no_others(tensor, field)
    return from_json(name, list(getattr(tensor.contents, field)), datatype, shape)


def _check_no_others(tensor: Any, field: str) -> None:
    others: Iterable[str] = (each.name for each, _ in tensor.contents.ListFields() if each.name != field)
    if other := next(iter(others), None):
        raise InputError(f"input {tensor.name!r}: {tensor.datatype} must be sent in {field}, not in {other}")
