"""The trace that a request belongs to, as its client says in `traceparent`: by it the request is followed through logs.

Source: W3C Trace Context, section 3.2.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "traceparent"
TRACE = "assay.trace"  # in a scope
NONE = "-"
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_of(traceparent: str | None) -> str:
    """What the header holds; "-" if there is none, or none that is valid."""
    return traceparent if traceparent and _FORM.fullmatch(traceparent) else NONE


class Traces:
    """ASGI middleware: notes the trace in the scope, and gives it back in the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(Headers(scope=scope).get(HEADER)) if scope["type"] == "http" else NONE
        if trace == NONE:
            await self._app(scope, receive, send)
            return
        scope[TRACE] = trace

        async def traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = trace
            await send(message)

        await self._app(scope, receive, traced)
