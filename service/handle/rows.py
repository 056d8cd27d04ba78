"""Rows of metrics: where they go while a job runs, and how they are kept."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from service.execution import layout
from service.store import Folder

Row = dict[str, float]
TRIAL = "trial"  # the column of the trials in the table of a whole run


class Report(Protocol):
    """Where a logged row goes besides the trial's table: Tune, or the serial runner. May end the trial by raising.

    index: the place of the row in the trial's table. total_steps: how many steps there will be, if the job knows.
    """

    def __call__(self, index: int, row: Row, total_steps: int | None) -> None: ...


def nowhere(index: int, row: Row, total_steps: int | None) -> None:
    """A report that goes nowhere: for `summarize`, and for a handle in a notebook."""


def read_rows(folder: Folder) -> list[Row]:
    """The rows of metrics in a trial's folder; [] if there are none yet."""
    if not folder.exists(layout.METRICS):
        return []
    rows = folder.read_rows(layout.METRICS)
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table. A row need not have every metric: what it lacks is null."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in columns})
