"""What is shown while a run goes on, on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from service.cli.live import Lines, LiveTable
from service.execution.fan_out.mapping import CellProgress
from service.formatting import duration
from service.planning.plan import TrialPlan
from tests.service.planning.test_plan import plans as plans_of


@pytest.fixture
def plans() -> list[TrialPlan]:
    return plans_of({"grid": {"seed": [1, 2]}, "metric": "height"})


def test_plain_lines(plans: list[TrialPlan], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    output = io.StringIO()
    with Lines(Console(file=output, width=40)) as lines:
        lines.run_started("one", "/store", 2)
        lines.started(plans[0])
        for step in range(1, 31):
            now[0] = float(step)
            lines.reported(plans[0], {"step": step, "height": step / 3}, 40)
        lines.ended(plans[0], "finished")
    *shown, last = output.getvalue().splitlines()
    assert shown == [
        "run one in /store",
        "seed=1: started",
        "seed=1: step 10, height 3.333, 30 s left",
        "seed=1: step 20, height 6.667, 20 s left",
        "seed=1: step 30, height 10, 10 s left",
    ]
    assert last.startswith("[1/2] seed=1: finished after ") and last.endswith(" (step 30, height 10)")


def test_a_map_of_cells(plans: list[TrialPlan], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines, terminal = io.StringIO(), io.StringIO()
    with LiveTable(Console(file=terminal, force_terminal=True, width=100)) as table:
        for each in (table, plain := Lines(Console(file=lines))):
            each.started(plans[0])
        now[0] = 10.0
        for each in (table, plain):
            each.mapped(plans[0], CellProgress("surface", 1200, 2601, 3, 120.0, 11.65))
    assert lines.getvalue().splitlines()[-1] == "seed=1: surface 1,200/2,601 cells, 120/s, 3 failed, 12 s left"
    for shown in ("seed=1", "surface 1,200/2,601 cells, 120/s", "12 s"):
        assert shown in terminal.getvalue()
    plain.reported(plans[0], {"step": 1, "height": 2.0}, None)
    plain.ended(plans[0], "partial")
    last = lines.getvalue().splitlines()[-1]
    assert "seed=1: partial after" in last and last.endswith("(step 1, height 2)")


def test_a_table_on_a_terminal(plans: list[TrialPlan]) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    with LiveTable(console) as table:
        table.run_started("one", "/store", 2)
        for plan in plans:
            table.started(plan)
        table.reported(plans[0], {"step": 5, "height": 1.5}, 10)
        table.ended(plans[1], "stopped")
    for shown in ("seed=1", "seed=2", "height 1.5", "stopped", "1 of 2 trials done"):
        assert shown in output.getvalue()


def test_durations() -> None:
    assert [duration(each) for each in (0.4, 59.6, 61, 3600, 90_000)] == [
        "0 s",
        "1 min 0 s",
        "1 min 1 s",
        "1 h 0 min",
        "25 h 0 min",
    ]
