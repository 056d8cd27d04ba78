"""An error as the end of a call: the code that is nearest to its HTTP status, and the same sentence."""

from collections.abc import Sequence
from typing import Any, Protocol

from grpc import StatusCode

from service.errors import AssayError
from serving.http.errors import INTERNAL, error_headers, shortened

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
}
RETRY_AFTER = "retry-after"  # seconds, in the trailing metadata

Metadata = Sequence[tuple[str, Any]]


class Context(Protocol):
    """The call as gRPC's server has it, or as Serve's replica has it."""

    def set_code(self, code: StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...


def refuse(context: Context, error: AssayError, retry_after: float = 1) -> None:
    """End a call with an error. retry_after: seconds, where the error does not say them itself."""
    end(context, CODES.get(error.http_status, StatusCode.INTERNAL), str(error))
    headers = {name.lower(): value for name, value in error_headers(error).items()}
    seconds = headers.get(RETRY_AFTER, f"{retry_after:.0f}" if error.http_status == 503 else "")
    if seconds:
        context.set_trailing_metadata([(RETRY_AFTER, seconds)])


def end(context: Context, code: StatusCode = StatusCode.INTERNAL, message: str = INTERNAL) -> None:
    context.set_code(code)
    context.set_details(shortened(message))
