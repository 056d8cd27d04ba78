"""The headers of a request, as a server hands them on: pairs of bytes, the names in lower case."""

import sys
from collections.abc import Mapping

from starlette.types import Scope

Headers = Mapping[str, str]

UNSHOWN = "assay.headers"  # in a scope: the headers of the client, where Serve was shown others
MAX_DIGITS = 18  # of a size that is read as it is


def sent(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What the client sent."""
    headers: list[tuple[bytes, bytes]] = scope.get(UNSHOWN, scope["headers"])
    return headers


def first_values(scope: Scope) -> Headers:
    """Each name with the first of its values."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(sent(scope))}


def values(scope: Scope, name: str) -> list[str]:
    """All values of one name."""
    sought = name.encode()
    return [value.decode("latin-1") for each, value in sent(scope) if each == sought]


def weights(header: str) -> Mapping[str, float]:
    """What a client accepts, as Accept and Accept-Encoding list it, each with its weight (RFC 9110, section 12.4.2)."""
    accepted: dict[str, float] = {}
    for each in header.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        weight = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
        try:
            accepted[name] = float(weight)
        except ValueError:
            accepted[name] = 0.0
    return accepted


def size_of(text: str) -> int | None:
    """The bytes that a header states. None: it states none; sys.maxsize: more than anything can have."""
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) if len(text) <= MAX_DIGITS else sys.maxsize  # Python reads only so many digits
