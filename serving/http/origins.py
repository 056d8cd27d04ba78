"""Web pages of others, which can make a browser send requests to a server that only this machine or network reaches.

A browser says in `Host` which name it asked for and in `Origin` which page asks. It sends some bodies to any server
without asking first: those of forms and plain text. So a name that is not the server's own is refused (a foreign name
may point at a loopback address), a page of another origin unless it is allowed, and those three types of bodies. What a
page embeds, as an image, is asked for without `Origin`; of that a browser says in `Sec-Fetch-Site` from where it is.
Source: Fetch Standard, "CORS-safelisted request-header"; W3C Fetch Metadata Request Headers.
"""

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from service.errors import ForbiddenError, UnsupportedMediaError, brief
from serving.http.headers import Headers

ANY = "*"
OWN_SITES = ("same-origin", "none")  # none: a person asks, by the address bar
SENT_UNASKED = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


class Origins:
    """hosts: the names by which the server may be asked; none: any. origins: pages that may ask."""

    def __init__(self, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._hosts, self._origins = hosts, origins

    def check(self, method: str, headers: Headers) -> None:
        """ForbiddenError or UnsupportedMediaError."""
        host = headers.get("host", "")
        if self._hosts and _name(host) not in self._hosts:
            raise ForbiddenError(
                f"the Host header must be one of {', '.join(self._hosts)}; it is {host[:80]!r}",
                "http.hosts in the settings of the server lists the names that it answers to",
            )
        origin = headers.get("origin")
        if not (origin is None or ANY in self._origins or origin in self._origins or _is_own(origin, host)):
            raise ForbiddenError(
                f"a page of {origin[:80]!r} may not use this server",
                "http.origins in the settings of the server lists those that may",
            )
        if origin is None and ANY not in self._origins and _is_embedded_elsewhere(headers):
            raise ForbiddenError(
                "a page of another origin may not embed what this server answers",
                "pages that http.origins lists ask by fetch",
            )
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and media in SENT_UNASKED:
            raise UnsupportedMediaError(
                f"Content-Type {brief(media)} is not supported: send application/json, application/octet-stream, or "
                "the type of an image",
                "curl: --json instead of -d",
            )


def _is_own(origin: str, host: str) -> bool:
    """Whether a page comes from this server."""
    return origin.partition("://")[2].lower() == host.lower() != ""


def _is_embedded_elsewhere(headers: Headers) -> bool:
    """Whether a page of another origin asks, and not the person who follows a link of it."""
    site = headers.get("sec-fetch-site")
    return site is not None and site not in OWN_SITES and headers.get("sec-fetch-dest") != "document"


@lru_cache(256)
def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
