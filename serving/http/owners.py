"""Whose a request is, and how much of what all share one owner may take."""

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from starlette.types import Scope

T = TypeVar("T")

KEY = "assay.owner"  # in a scope: the name of the key, where keys are required
SHARE = 0.5  # of places, of memory, of streams: what one owner may have of them


def owner_of(scope: Scope) -> str:
    """The name of the key; the address of the client where no keys are required."""
    address, _ = scope.get("client") or ("", 0)
    return str(scope.get(KEY) or address)


def leaving(held: Mapping[T, tuple[str, int]]) -> T:
    """Which of several things goes where they are too many: of the owner that holds the most its oldest.

    The newest stays: it is what there has to be room for. held: the owner and the size of each, at least two, the
    oldest first.
    """
    *others, _ = held
    sizes: Counter[str] = Counter()
    for owner, size in held.values():
        sizes[owner] += size
    greediest = max(sizes, key=sizes.__getitem__)
    return next((each for each in others if held[each][0] == greediest), others[0])
