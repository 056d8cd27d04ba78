"""Whether the server lives: answered by every HTTP server itself, so that no load at the replicas delays it."""

from starlette.types import Send

LIVE = "v2/health/live"
BODY = b'{"live": true}'


def is_asked(method: str, path: str) -> bool:
    return path.strip("/") == LIVE and method in ("GET", "HEAD")


async def answer(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
