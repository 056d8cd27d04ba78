"""What code without a handle says reaches the run: from a trial, from its cells, and from cells that were kept."""

from pathlib import Path

import pytest

from service.run import Run, remarks
from tests.service.execution.fan_out.handles import handle

NOTE, WARNING = "batches of 8", "memory ran out"


def cell(number: int, shared: None) -> int:
    remarks.note(NOTE)
    if number == 1:
        remarks.warn(WARNING)
    return number


def said(run: Run) -> tuple[list[str], list[str]]:
    return list(run.written.notes), list(run.written.warnings)


def test_cells_are_heard_by_the_handle_also_if_they_are_not_computed_again(tmp_path: Path) -> None:
    for _ in range(2):
        run = handle(tmp_path)
        with remarks.heard_by(run):
            assert run.map(cell, [0, 1, 2], name="cells") == [0, 1, 2]
        assert said(run) == ([NOTE], [WARNING])


def test_a_checkpoint_keeps_notes(tmp_path: Path) -> None:
    run = handle(tmp_path)
    run.note(NOTE)
    run.checkpoint({})
    again = handle(tmp_path)
    again.restore()
    assert said(again) == ([NOTE], [])


def test_where_nobody_listens_notes_are_lost_and_warnings_are_those_of_python() -> None:
    remarks.note(NOTE)
    with pytest.warns(UserWarning, match=WARNING):
        remarks.warn(WARNING)
