"""Whose a request is, and what of whom goes where there is too much."""

import pytest

from serving.http.owners import KEY, leaving, owner_of


def test_without_a_key_the_address_is_the_owner() -> None:
    assert owner_of({KEY: "alice", "client": ("10.0.0.1", 5)}) == "alice"
    assert owner_of({"client": ("10.0.0.1", 5)}) == "10.0.0.1" and owner_of({"client": None}) == ""


@pytest.mark.parametrize(
    ("held", "goes"),
    [
        ([("alice", 1), ("mallory", 1), ("mallory", 1), ("bob", 1)], 1),
        ([("alice", 3), ("mallory", 1), ("mallory", 1), ("bob", 1)], 0),
        ([("alice", 1), ("mallory", 9)], 0),  # there has to be room for the newest
        ([("alice", 1), ("bob", 1)], 0),
        ([("", 1), ("", 5), ("", 1)], 0),  # nobody has a key
    ],
)
def test_the_oldest_goes_of_whoever_holds_the_most(held: list[tuple[str, int]], goes: int) -> None:
    assert leaving(dict(enumerate(held))) == goes
