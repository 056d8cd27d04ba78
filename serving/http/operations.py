"""Every request that the server answers: one table, by which requests are routed and described."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.types import Scope

from service.errors import InputError, MethodNotAllowedError, brief, nearest

OF_MODEL = "/v2/models/{name}"
OF_VERSION = "/v2/models/{name}/versions/{version}"
OF_REPOSITORY = "/v2/repository/models/{name}"


class NoSuchPathError(InputError):
    http_status = 404


@dataclass(frozen=True)
class Operation:
    """One request. handler: the name of the method of the server that answers it. action: that models have or not."""

    method: str
    paths: tuple[str, ...]
    handler: str
    summary: str
    action: str = ""


def _of_server(method: str, path: str, handler: str, summary: str) -> Operation:
    return Operation(method, (path,), handler, summary)


def _of_model(method: str, end: str, handler: str, summary: str, action: str = "") -> Operation:
    return Operation(method, (OF_MODEL + end, OF_VERSION + end), handler, summary, action)


OPERATIONS = (
    _of_server("GET", "/v2", "describe_server", "The server: its version and its extensions"),
    _of_server("GET", "/v2/health/live", "live", "Whether it is up"),
    _of_server("GET", "/v2/health/ready", "ready", "Whether it can load models"),
    _of_server("GET", "/v2/models", "list_models", "Every model of the store: versions, task, what can be asked of it"),
    _of_server("GET", "/v2/models/stats", "all_statistics", "Counts, times and batch sizes of all models"),
    _of_server("POST", "/v2/repository/index", "index", "Every version of every model of the store"),
    Operation("POST", (OF_REPOSITORY + "/load", OF_REPOSITORY + "/unload"), "load_model", "Refused, and why"),
    _of_model("GET", "", "describe_model", "A model: inputs, outputs, versions, what can be asked of it"),
    _of_model("GET", "/config", "model_config", "Its configuration in the words of Triton"),
    _of_model("GET", "/ready", "model_ready", "Whether a model is served"),
    _of_model("GET", "/stats", "model_statistics", "Counts, times and batch sizes of a model"),
    _of_model("POST", "/infer", "infer", "The outputs for tensors, or for an uploaded file", "infer"),
    _of_model("POST", "/infer_stream", "infer_stream", "An answer after each iteration, as events", "infer_stream"),
    _of_model("GET", "/infer_stream", "infer_stream_of_query", "The same, for EventSource", "infer_stream"),
    _of_model("POST", "/attack", "attack", "Adversarial inputs, and what they do to the predictions", "attack"),
    _of_model("POST", "/sonify", "sonify", "A sound that excites a feature of the network", "sonify"),
)


class Router:
    """Finds the operation of a request. HEAD is answered as GET is."""

    def __init__(self, operations: Sequence[Operation] = OPERATIONS) -> None:
        self._operations: dict[str, dict[str, Operation]] = {}  # by path, with the names of its parts, and method
        for operation in operations:
            for path in operation.paths:
                self._operations.setdefault(path, {})[operation.method] = operation

    def find(self, scope: Scope) -> tuple[Operation, Mapping[str, str]]:
        """The operation of a request, and the parts of its path by name.

        NoSuchPathError; or MethodNotAllowedError, which says what is allowed there.
        """
        path, method = "/" + scope["path"].strip("/"), scope["method"]
        for template, parts in _templates(path):
            if operations := self._operations.get(template):
                if operation := operations.get("GET" if method == "HEAD" else method):
                    return operation, parts
                allowed = sorted([*operations, *(["HEAD"] if "GET" in operations else [])])
                raise MethodNotAllowedError(method, path, allowed)
        raise NoSuchPathError(f"nothing is at {brief(path)}", self._hint(path))

    def _hint(self, path: str) -> str:
        """The nearest action of a model, or where to begin."""
        match path.strip("/").split("/"):
            case ["v2", "models", _, "versions", _, *rest] | ["v2", "models", _, *rest] if rest:
                known = {each.rpartition("/")[2] for each in self._operations if each.startswith(OF_MODEL)}
                return nearest(rest[0], (end for end in known if not end.startswith("{")))
        return "the server describes itself at GET /v2, and its paths at GET /docs"


def _templates(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The ways to read a path: as it is, or with the name of a model, and its version, in it."""
    yield path, {}
    match path.split("/"):
        case ["", "v2", "models", name, "versions", version, *end]:
            yield "/".join([OF_VERSION, *end]), {"name": name, "version": version}
        case ["", "v2", "models", name, *end]:
            yield "/".join([OF_MODEL, *end]), {"name": name}
        case ["", "v2", "repository", "models", name, *end]:
            yield "/".join([OF_REPOSITORY, *end]), {"name": name}
