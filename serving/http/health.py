"""Whether the server lives: answered by every HTTP server itself, so that no load at the replicas delays it."""

from starlette.types import ASGIApp, Receive, Scope, Send

LIVE = "v2/health/live"
BODY = b'{"live": true}'


class Liveness:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or scope["path"].strip("/") != LIVE:
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})
