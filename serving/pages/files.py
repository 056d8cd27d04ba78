"""The files of the pages, answered by every HTTP server itself: no key is asked, and no replica is needed."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.types import Send

from service.errors import MethodNotAllowedError
from serving.http.headers import Headers
from serving.http.openapi import description
from serving.http.protocol import accepts_gzip

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
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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

    async def answer(self, method: str, path: str, asked: Headers, send: Send) -> None:
        """asked: the headers of the request. MethodNotAllowedError if it is not for reading."""
        if method not in METHODS:
            raise MethodNotAllowedError(method, path, METHODS)
        headers = {**HEADERS, "etag": self.tag, "content-type": self.media_type}
        status, body = 200, self.body
        if accepts_gzip(asked.get("accept-encoding", "")):
            body = self.compressed
            headers["content-encoding"] = "gzip"
        headers["content-length"] = str(len(body))
        if self.tag in asked.get("if-none-match", ""):
            status, body = 304, b""
            del headers["content-length"]
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


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


def address(path: str) -> str:
    """Of the file that a path may mean: a slash at the end does not matter."""
    return path if path == "/" else path.rstrip("/")
