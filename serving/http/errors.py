"""An error as an HTTP answer: one shape for all, whoever finds it."""

import json
import math

from service.errors import AssayError, MethodNotAllowedError, OverLimitError, UnauthorisedError

INTERNAL = "internal error; the log of the replica says more"
LONGEST = 1000  # characters of a sentence: what a client sent is not sent back at length


def error_body(message: str) -> bytes:
    """The protocol's shape of an error."""
    return json.dumps({"error": shortened(message)}).encode()


def shortened(message: str) -> str:
    return message if len(message) <= LONGEST else f"{message[:LONGEST]}…"


def error_headers(error: AssayError) -> dict[str, str]:
    """The headers beside the sentence: how to show a key, when to come back, or how to ask."""
    if isinstance(error, UnauthorisedError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, OverLimitError):
        return {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    if isinstance(error, MethodNotAllowedError):
        return {"Allow": ", ".join(error.allowed)}
    return {}
