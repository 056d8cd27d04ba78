"""The headers of a request, as a server hands them on: pairs of bytes, the names in lower case."""

from collections.abc import Mapping

from starlette.types import Scope

Headers = Mapping[str, str]


def first_values(scope: Scope) -> Headers:
    """Each name with the first of its values."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def values(scope: Scope, name: str) -> list[str]:
    """All values of one name."""
    sought = name.encode()
    return [value.decode("latin-1") for each, value in scope["headers"] if each == sought]
