"""Cells on disk: their names, and the parts that they are written in."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.execution import remarks
from service.execution.fan_out import cells
from service.execution.fan_out.cells import CellStore, Outcome
from service.store import open_store
from tests.service.execution.fan_out.handles import identical

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON)
def test_a_cell_is_named_by_its_content(one: Any, other: Any) -> None:
    texts = [cells.canonical(each, "cell") for each in (one, other)]
    # what repr keeps apart (1, 1.0 and True) is kept apart; the order of a dictionary is not
    assert (texts[0] == texts[1]) == (sorted_repr(one) == sorted_repr(other))
    assert identical(json.loads(texts[0]), one)
    assert (cells.key_of("a", texts[0]) == cells.key_of("a", texts[1])) == (texts[0] == texts[1])
    assert cells.key_of("a", "b", texts[0]) != cells.key_of("ab", texts[0])


def sorted_repr(value: Any) -> str:
    if isinstance(value, dict):
        return "dict " + repr([(key, sorted_repr(value[key])) for key in sorted(value)])
    return repr(list(map(sorted_repr, value))) if isinstance(value, list) else repr(value)


def test_many_parts_are_joined(tmp_path: Path) -> None:
    store = CellStore(open_store(str(tmp_path)))
    for index in range(2 * cells.SMALL_PARTS + 3):
        store.add(f"key{index}", f"{index}", Outcome(0.0, bytes([index])))
        store.flush()
    store.flush()
    assert len(list(tmp_path.iterdir())) == 2 + 3
    written = {f"key{index}": bytes([index]) for index in range(2 * cells.SMALL_PARTS + 3)}
    assert CellStore(open_store(str(tmp_path))).load({*written, "absent"}) == written


def test_only_the_cells_that_are_asked_for_are_loaded_and_repeat_their_remarks(tmp_path: Path) -> None:
    store = CellStore(open_store(str(tmp_path)), common=True)
    for name in ("mine", "another"):
        store.add(name, name, Outcome(0.0, name.encode(), notes=(f"{name} noted",), warnings=(f"{name} warned",)))
    store.flush()
    said = remarks.Remarks()
    with remarks.heard_by(said):
        assert store.load({"mine"}) == {"mine": b"mine"}
    assert (said.notes, said.warnings) == (("mine noted",), ("mine warned",))
