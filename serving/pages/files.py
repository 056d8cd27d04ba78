"""The files of the pages, answered by every HTTP server itself: no key is asked, and no replica is needed."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import MethodNotAllowedError
from serving.http.errors import refuse
from serving.http.openapi import description

FOLDER = "/pages/"
PANELS = "panels"
ADDRESSES = {"index.html": "/", "docs.html": "/docs"}  # of the pages themselves; other files are in FOLDER
DESCRIPTION = "/openapi.json"
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
METHODS = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # it may be kept, and is asked for by its tag: a new version is seen at once
    "vary": "accept-encoding",
}


@dataclass(frozen=True)
class File:
    """A file, also compressed. tag: another for other contents; weak, as both forms share it."""

    media_type: str
    body: bytes
    compressed: bytes
    tag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> "File":
        tag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'
        return cls(MEDIA[name[name.rindex(".") :]], body, gzip.compress(body, mtime=0), tag)


@cache
def files() -> Mapping[str, File]:
    """All files by their addresses."""
    folder = resources.files("serving.pages")
    known = {DESCRIPTION: File.of(DESCRIPTION, json.dumps(description(), indent=1).encode())}
    for name, file in {**_files(folder, ""), **_files(folder / PANELS, f"{PANELS}/")}.items():
        known[ADDRESSES.get(name, FOLDER + name)] = File.of(name, file.read_bytes())
    return known


def _files(folder: Traversable, prefix: str) -> Mapping[str, Traversable]:
    return {f"{prefix}{file.name}": file for file in folder.iterdir() if file.name.endswith(tuple(MEDIA))}


class Pages:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._files = app, files()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (file := self._files.get(_address(scope["path"]))):
            await self._app(scope, receive, send)
            return
        if scope["method"] not in METHODS:
            await refuse(MethodNotAllowedError(scope["method"], scope["path"], METHODS), receive, send)
            return
        asked = Headers(scope=scope)
        headers = {**HEADERS, "etag": file.tag, "content-type": file.media_type}
        status, body = 200, file.body
        if "gzip" in asked.get("accept-encoding", ""):
            body = file.compressed
            headers["content-encoding"] = "gzip"
        headers["content-length"] = str(len(body))
        if file.tag in asked.get("if-none-match", ""):
            status, body = 304, b""
            del headers["content-length"]
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _address(path: str) -> str:
    return path if path == "/" else path.rstrip("/")
