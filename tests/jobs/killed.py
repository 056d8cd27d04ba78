"""Runs that are killed in the middle, and what has to come out when they are started again."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.run import Run


class KilledAtReport(Run):
    """Dies at a report, right after its checkpoint or right before, as by SIGKILL."""

    reports, before = 2, False

    def checkpoint(self, state: dict[str, Any], phase: str = "main") -> None:
        if len(self.rows) == self.reports and self.before:
            raise KeyboardInterrupt
        super().checkpoint(state, phase)
        if len(self.rows) == self.reports:
            raise KeyboardInterrupt


class KilledAfterCells(Run):
    """Dies when it has computed the cells of a name."""

    cells = "attacks"

    def map(self, fn: Any, cells: Any, shared: Any = None, name: str | None = None) -> list[Any]:
        results = super().map(fn, cells, shared, name)
        if name == self.cells:
            raise KeyboardInterrupt
        return results


def check_resumed(
    run: Callable[[Any, Run], None],
    params: Any,
    make_run: Callable[..., Any],
    kinds: Sequence[type[Run]],
    tables: Sequence[str],
) -> list[Run]:
    """Runs that were killed and are started again end with the tables and metrics of one that was not disturbed.

    kinds: each dies elsewhere. Seconds may differ. Returns the handle that was not disturbed, then those of the others.
    """
    undisturbed = make_run("undisturbed")
    run(params, undisturbed)
    resumed = []
    for kind in kinds:
        with pytest.raises(KeyboardInterrupt):
            run(params, make_run(kind.__name__, kind=kind))
        again = make_run(kind.__name__)
        run(params, again)
        for table in tables:
            path = f"tables/{table}.parquet"
            one, other = (each.folder.read_table(path).to_pylist() for each in (again, undisturbed))
            assert [without_seconds(row) for row in one] == [without_seconds(row) for row in other], (kind, table)
        assert without_seconds(again.metrics) == without_seconds(undisturbed.metrics), kind
        resumed.append(again)
    return [undisturbed, *resumed]


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.endswith("seconds")}
