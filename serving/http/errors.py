"""An error as an HTTP answer: one shape for all, whoever finds it."""

import asyncio
import contextlib
import json
import math

from starlette.types import Receive, Send

from service.errors import AssayError, OverLimitError, UnauthorisedError

INTERNAL = "internal error; the log of the replica says more"
LINGER_SECONDS = 10.0


def error_body(message: str) -> bytes:
    """The protocol's shape of an error."""
    return json.dumps({"error": message}).encode()


def error_headers(error: AssayError) -> dict[str, str]:
    """The headers beside the sentence: how to show a key, or when to come back."""
    if isinstance(error, UnauthorisedError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, OverLimitError):
        return {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    return {}


async def refuse(error: AssayError, receive: Receive, send: Send) -> None:
    """Answer with an error before the body has been read, and close the connection."""
    body = error_body(str(error))
    headers = {
        **error_headers(error),
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.http_status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # To close on a client that still sends would reset the connection, and the client would never read the answer. So
    # the rest of its body is read and dropped for a while.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
