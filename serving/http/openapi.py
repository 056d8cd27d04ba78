"""The description of all requests as OpenAPI 3.1, made from the table by which they are routed.

What a request takes and what it answers is written here as JSON Schema, by the name of its handler. What a model takes
beyond that, its inputs and parameters, is in its metadata.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any

from service.models import NAME, VERSION
from serving.http.operations import OF_MODEL, OF_REPOSITORY, OPERATIONS, Operation
from serving.http.protocol import HEADER_LENGTH, MAX_ID, MAX_NAME, MAX_TENSORS
from serving.http.streams import EVENT_STREAM
from serving.http.tensors import BF16, DATATYPES, MAX_DIMENSIONS, MAX_SIZE
from serving.http.uploads import FORMATS, PNG_MEDIA, WAV_MEDIA

Json = dict[str, Any]
JSON_MEDIA, BINARY_MEDIA = "application/json", "application/octet-stream"
ERRORS = {
    "400": "Something in the request is wrong",
    "401": "No key, or one that is not known",
    "403": "A name or a web page that the server does not answer to",
    "404": "No such model, version or action",
    "408": "The body did not come in time, or the answer would not",
    "413": "The body, or what it unpacks to, is too large",
    "415": "A body of a type that is not read",
    "429": "The key has used up its requests or its work",
    "431": "The headers are too large",
    "500": "The model or the server failed",
    "501": "The server does not do this",
    "503": "No room now, or the store is out of reach",
}
OF_ANY = ("401", "403", "408", "429", "431", "500", "503")
OF_BODY = ("400", "413", "415")


def _object(properties: Mapping[str, Any], optional: Sequence[str] = (), **more: Any) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, **more}


def _list_of(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
BINARY = {"type": "string", "format": "binary"}
TOTAL, STATISTIC = _ref("Total"), _ref("BatchStatistics")
SCALARS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
ANY_OBJECT = {"type": "object"}
DATATYPE = {"enum": list(DATATYPES)}
SHAPE = _list_of({"type": "integer", "minimum": 0, "maximum": MAX_SIZE}, minItems=1, maxItems=MAX_DIMENSIONS)
OPEN_SHAPE = _list_of({"type": "integer", "minimum": -1}, description="-1: any size; the batch comes first")
TENSOR_NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}

SCHEMAS: Mapping[str, Json] = {
    "Error": _object({"error": {"type": "string", "description": "one sentence that says what is allowed"}}),
    "Server": _object({"name": TEXT, "version": TEXT, "extensions": _list_of(TEXT)}),
    "Live": _object({"live": FLAG}),
    "Ready": _object({"ready": FLAG}),
    "ModelReady": _object({"name": TEXT, "ready": FLAG}),
    "ModelList": _object({
        "models": _list_of(_object({
            "name": TEXT,
            "versions": _list_of(TEXT, description="oldest first"),
            "task": TEXT,
            "description": TEXT,
            "actions": _list_of(TEXT, description="the last parts of its paths"),
            "reason": {"type": "string", "description": "why it cannot be served, as far as its card says"},
        })),
    }),
    "TensorDescription": _object({"name": TEXT, "datatype": TEXT, "shape": OPEN_SHAPE}),
    "ModelMetadata": _object({
        "name": TEXT,
        "versions": _list_of(TEXT),
        "platform": TEXT,
        "inputs": _list_of(_ref("TensorDescription")),
        "outputs": _list_of(_ref("TensorDescription")),
        "parameters": _object({
            "version": TEXT,
            "task": TEXT,
            "description": TEXT,
            "study": TEXT,
            "architecture": TEXT,
            "created": TEXT,
            "weights": {**COUNT, "description": "how many numbers"},
            "metrics": {"type": "object", "description": "what was measured of it"},
            "settings": {"type": "object", "description": "names of its classes and others of its kind"},
            "actions": _list_of(TEXT),
            "attacks": {"type": "object", "additionalProperties": _ref("AttackDescription")},
            "sonification": {
                "type": "object",
                "description": "empty, or the layers of the network with their channels, and the JSON schemas of what "
                "sonify takes: of all, of each objective, and of each parameterisation",
            },
            "panel": {"type": "string", "description": "by which the page lets a person try it"},
        }),
    }),
    "AttackDescription": _object({
        "norms": _list_of(TEXT),
        "description": TEXT,
        "parameters": {
            "type": "object",
            "additionalProperties": ANY_OBJECT,
            "description": "the JSON schema of each of its own, beside attack, epsilon and norm",
        },
    }),
    "ConfiguredTensor": _object({
        "name": TEXT,
        "data_type": {"type": "string", "pattern": "^TYPE_"},
        "dims": {**OPEN_SHAPE, "description": "-1: any size; without the batch"},
    }),
    "ModelConfiguration": _object({
        "name": TEXT,
        "platform": TEXT,
        "backend": TEXT,
        "version_policy": ANY_OBJECT,
        "max_batch_size": COUNT,
        "input": _list_of(_ref("ConfiguredTensor")),
        "output": _list_of(_ref("ConfiguredTensor")),
        "dynamic_batching": _object({"preferred_batch_size": _list_of(COUNT), "max_queue_delay_microseconds": COUNT}),
        "instance_group": _list_of(ANY_OBJECT),
        "default_model_filename": TEXT,
        "parameters": ANY_OBJECT,
    }),
    "Total": _object({"count": COUNT, "ns": COUNT}),
    "BatchStatistics": _object({
        "batch_size": COUNT, "compute_input": TOTAL, "compute_infer": TOTAL, "compute_output": TOTAL,
    }),
    "Statistics": _object({
        "model_stats": _list_of(_object({
            "name": TEXT,
            "version": TEXT,
            "last_inference": {**COUNT, "description": "milliseconds since 1970; 0: none yet"},
            "inference_count": COUNT,
            "execution_count": COUNT,
            "inference_stats": _object({
                name: TOTAL
                for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
                             "cache_hit", "cache_miss")
            }),
            "response_stats": ANY_OBJECT,
            "batch_stats": _list_of(STATISTIC),
            "memory_usage": _list_of(ANY_OBJECT),
            "streamed": {**COUNT, "description": "answers sent on streams"},
            "attack_stats": _object(
                {"success": TOTAL, "fail": TOTAL, "queries": COUNT, "gradients": COUNT},
                description="of attacks and sonifications",
            ),
            "running": _object({"batches": COUNT, "streams": COUNT, "attacks": COUNT}),
        })),
    }),
    "IndexRequest": _object({"ready": FLAG}, optional=["ready"], additionalProperties=False),
    "Index": _list_of(_object({
        "name": TEXT, "version": TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": TEXT, "loaded": FLAG,
    })),
    "InputTensor": _object({
        "name": TENSOR_NAME,
        "shape": SHAPE,
        "datatype": {"enum": [*DATATYPES, BF16]},
        "data": {"type": "array", "description": "numbers, or true and false, in row-major order; nested or flat"},
        "parameters": SCALARS,
    }, optional=["parameters"]),
    "RequestedOutput": _object({
        "name": TENSOR_NAME,
        "parameters": {**SCALARS, "properties": {"binary_data": FLAG}},
    }, optional=["parameters"]),
    "InferRequest": _object({
        "id": {"type": "string", "maxLength": MAX_ID},
        "parameters": {**SCALARS, "properties": {"binary_data_output": FLAG}},
        "inputs": _list_of(_ref("InputTensor"), minItems=1, maxItems=MAX_TENSORS),
        "outputs": _list_of(_ref("RequestedOutput"), maxItems=MAX_TENSORS, description="none: the usual ones"),
    }, optional=["id", "parameters", "outputs"]),
    "SonifyRequest": _object({
        "id": {"type": "string", "maxLength": MAX_ID},
        "parameters": {**SCALARS, "properties": {"binary_data_output": FLAG}},
        "inputs": _list_of(_ref("InputTensor"), maxItems=MAX_TENSORS, description="a clip to begin with; none: noise"),
        "outputs": _list_of(_ref("RequestedOutput"), maxItems=MAX_TENSORS, description="none: all"),
    }, optional=["id", "parameters", "inputs", "outputs"]),
    "Objects": _object({
        "width": COUNT,
        "height": COUNT,
        "objects": _list_of(_object({
            "label": COUNT,
            "class": TEXT,
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "box": _list_of({"type": "number"}, minItems=4, maxItems=4, description="left, top, right, bottom"),
        }), description="the surest first"),
    }),
    "OutputTensor": _object({
        "name": TEXT,
        "shape": SHAPE,
        "datatype": DATATYPE,
        "data": _list_of({"type": ["number", "boolean", "string"]}, description='a text: "NaN", "Infinity", …'),
        "parameters": SCALARS,
    }, optional=["data", "parameters"]),
    "InferResponse": _object({
        "model_name": TEXT,
        "model_version": TEXT,
        "id": TEXT,
        "parameters": {**SCALARS, "description": "a warning; of an attack or sonify, all of its parameters"},
        "outputs": _list_of(_ref("OutputTensor")),
    }, optional=["id", "parameters"]),
}  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """What a request takes and what it answers, by media type. errors: besides those of any request."""

    answers: Mapping[str, Json]
    takes: Mapping[str, Json] | None = None
    needs_body: bool = False
    errors: tuple[str, ...] = ()


def _json(name: str) -> Mapping[str, Json]:
    return {JSON_MEDIA: _ref(name)}


IMAGES = {f"image/{name.lower()}": BINARY for name in FORMATS}
SOUNDS = {f"audio/{name}": BINARY for name in ("wav", "flac", "ogg", "mpeg")}
TENSORS_OR_FILE = {JSON_MEDIA: _ref("InferRequest"), BINARY_MEDIA: BINARY, **IMAGES, **SOUNDS}
TENSORS_OR_PICTURE = {JSON_MEDIA: _ref("InferResponse"), BINARY_MEDIA: BINARY, PNG_MEDIA: BINARY}
TENSORS_PICTURE_OR_SOUND = {**TENSORS_OR_PICTURE, WAV_MEDIA: BINARY}
TENSORS_OBJECTS_PICTURE_OR_SOUND = {
    **TENSORS_PICTURE_OR_SOUND,
    JSON_MEDIA: {"anyOf": [_ref("InferResponse"), _ref("Objects")]},
}

CONTENTS: Mapping[str, Contents] = {
    "describe_server": Contents(_json("Server")),
    "live": Contents(_json("Live")),
    "ready": Contents(_json("Ready")),
    "list_models": Contents(_json("ModelList")),
    "all_statistics": Contents(_json("Statistics")),
    "index": Contents(_json("Index"), _json("IndexRequest")),
    "load_model": Contents({}, {JSON_MEDIA: ANY_OBJECT}, errors=("501",)),
    "describe_model": Contents(_json("ModelMetadata")),
    "model_config": Contents(_json("ModelConfiguration")),
    "model_ready": Contents(_json("ModelReady")),
    "model_statistics": Contents(_json("Statistics")),
    "infer": Contents(TENSORS_OBJECTS_PICTURE_OR_SOUND, TENSORS_OR_FILE, needs_body=True),
    "infer_stream": Contents({EVENT_STREAM: TEXT}, TENSORS_OR_FILE, needs_body=True),
    "infer_stream_of_query": Contents({EVENT_STREAM: TEXT}, errors=("400",)),
    "attack": Contents(TENSORS_PICTURE_OR_SOUND, TENSORS_OR_FILE, needs_body=True),
    "sonify": Contents(TENSORS_PICTURE_OR_SOUND, {JSON_MEDIA: _ref("SonifyRequest"), BINARY_MEDIA: BINARY, **SOUNDS}),
}
"""by the handler of an operation"""

WITHOUT_KEY = ("live", "ready")

PARAMETERS: Mapping[str, Json] = {
    "name": {"name": "name", "in": "path", "required": True, "description": "of a model", "schema": {
        "type": "string", "pattern": f"^{NAME.pattern}$"}},
    "version": {"name": "version", "in": "path", "required": True, "description": "of the model", "schema": {
        "type": "string", "pattern": f"^{VERSION.pattern}$"}},
    "options": {"name": "options", "in": "query", "style": "form", "explode": True,
        "description": "Of an uploaded file, or without a body: outputs=a,b and parameters of the model",
        "schema": {**SCALARS, "properties": {"outputs": TEXT}}},
    "inputs": {"name": "inputs", "in": "query", "required": True, "description": "Those of the body of a POST",
        "content": {JSON_MEDIA: {"schema": _list_of(_ref("InputTensor"), minItems=1, maxItems=MAX_TENSORS)}}},
    "header_length": {"name": HEADER_LENGTH, "in": "header",
        "description": "How many bytes of the body are JSON, if raw tensors follow it", "schema": COUNT},
}  # fmt: skip


def description() -> Json:
    """The whole of it."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        for path in operation.paths:
            paths.setdefault(path, {})[operation.method.lower()] = _described(operation, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Assay",
            "version": version_of("assay"),
            "description": "Models behind the Open Inference Protocol v2, with streams, attacks and sonification.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS),
            "parameters": dict(PARAMETERS),
            "responses": {f"Error{status}": _error(status) for status in ERRORS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _described(operation: Operation, path: str) -> Json:
    contents = CONTENTS[operation.handler]
    described: Json = {
        "operationId": "_".join([operation.handler, *_distinction(operation, path)]),
        "summary": operation.summary,
        "tags": [_tag(path)],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _parameters(operation, path)],
        "responses": _responses(contents, path),
    }
    if contents.takes:
        described["requestBody"] = {"required": contents.needs_body, "content": _content(contents.takes)}
    if operation.handler in WITHOUT_KEY:
        described["security"] = []
    return described


def _distinction(operation: Operation, path: str) -> Iterator[str]:
    """What tells the paths of an operation from each other."""
    if path.startswith(OF_REPOSITORY):
        yield path.rpartition("/")[2]
    elif path != operation.paths[0]:
        yield "of_version"


def _tag(path: str) -> str:
    return "models" if path.startswith(OF_MODEL) else "server"


def _parameters(operation: Operation, path: str) -> Iterator[str]:
    yield from (name for name in ("name", "version") if f"{{{name}}}" in path)
    if operation.handler == "infer_stream_of_query":
        yield from ("inputs", "options")
    elif operation.action:
        yield from ("options", "header_length")


def _responses(contents: Contents, path: str) -> Json:
    responses: Json = {}
    if contents.answers:
        responses["200"] = {"description": "The answer", "content": _content(contents.answers)}
    of_model = ("404",) if path.startswith(OF_MODEL) else ()
    for status in sorted({*OF_ANY, *contents.errors, *(OF_BODY if contents.takes else ()), *of_model}):
        responses[status] = {"$ref": f"#/components/responses/Error{status}"}
    return responses


def _error(status: str) -> Json:
    return {"description": ERRORS[status], "content": _content(_json("Error"))}


def _content(schemas: Mapping[str, Json]) -> Json:
    return {media: {"schema": schema} for media, schema in schemas.items()}
