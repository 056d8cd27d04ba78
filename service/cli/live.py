"""What a user sees while a run is going on: a live table on a terminal, plain lines anywhere else."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.formatting import duration, metrics_text

if TYPE_CHECKING:  # torch takes seconds to load: it is loaded while Ray starts
    from service.execution.fan_out.mapping import CellProgress
    from service.handle.rows import Row
    from service.planning.plan import TrialPlan

PLAIN_SECONDS = 10.0  # between two plain lines of the same trial
SHOWN_TRIALS = 20


@dataclass
class _TrialState:
    status: str = "running"
    row: "Row" = field(default_factory=dict)
    total_steps: int | None = None
    cells: "CellProgress | None" = None  # of the map that is going on
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    first_step: float | None = None  # reached at the first report since `began`: a resumed trial does not begin at 0
    first_at: float = 0.0

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began

    @property
    def share(self) -> float | None:
        if self.cells:
            return (self.cells.done + self.cells.failed) / max(self.cells.total, 1)
        return min(self.row.get("step", 0) / self.total_steps, 1.0) if self.total_steps else None

    @property
    def seconds_left(self) -> float | None:
        """From the pace since the first report; None before the second."""
        if self.cells:
            return self.cells.seconds_left
        if self.total_steps is None or self.first_step is None or self.row["step"] <= self.first_step:
            return None
        pace = (time.monotonic() - self.first_at) / (self.row["step"] - self.first_step)
        return max(self.total_steps - self.row["step"], 0) * pace

    def take(self, row: "Row", total_steps: int | None) -> None:
        self.row, self.total_steps, self.cells = {**self.row, **row}, total_steps, None
        if self.first_step is None:
            self.first_step, self.first_at = row["step"], time.monotonic()

    @property
    def newest(self) -> str:
        return str(self.cells) if self.cells else metrics_text(self.row)


class Lines:
    """Plain lines: one when a trial starts and ends, and one every ten seconds between."""

    def __init__(self, console: Console) -> None:
        self.console, self.total, self.done = console, 0, 0
        self.trials: dict[str, _TrialState] = {}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def note(self, sentence: str) -> None:
        """Print a sentence, above the table if there is one."""
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def run_started(self, run: str, store: str, trials: int) -> None:
        self.total = trials
        self.note(f"run {run} in {store}")

    def started(self, plan: "TrialPlan") -> None:
        self.trials[plan.id] = _TrialState()
        self._last_line[plan.id] = time.monotonic()
        self._say(f"{plan.label}: started")

    def reported(self, plan: "TrialPlan", row: "Row", total_steps: int | None) -> None:
        self.trials[plan.id].take(row, total_steps)
        self._going_on(plan)

    def mapped(self, plan: "TrialPlan", cells: "CellProgress") -> None:
        self.trials[plan.id].cells = cells
        self._going_on(plan)

    def _going_on(self, plan: "TrialPlan") -> None:
        state = self.trials[plan.id]
        if time.monotonic() - self._last_line[plan.id] >= PLAIN_SECONDS:
            self._last_line[plan.id] = time.monotonic()
            left = f", {duration(state.seconds_left)} left" if state.seconds_left is not None else ""
            self._say(f"{plan.label}: {state.newest}{left}")

    def ended(self, plan: "TrialPlan", status: str) -> None:
        state = self.trials[plan.id]
        state.status, state.ended = status, time.monotonic()
        self.done += 1
        took, newest = duration(state.seconds), state.newest
        self._say(f"[{self.done}/{self.total}] {plan.label}: {status} after {took} ({newest})")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveTable(Lines):
    """A table that is redrawn in place: one row a trial, with its bar, its pace and its newest metrics."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._labels: dict[str, str] = {}
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4)

    def __enter__(self) -> "LiveTable":
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def started(self, plan: "TrialPlan") -> None:
        self._labels[plan.id] = plan.label
        super().started(plan)

    def _say(self, text: str) -> None:
        pass  # the table says it

    def _draw(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("trial", "", "time", "left", "newest"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        # running trials first; of those that ended only the latest fit
        shown = sorted(self.trials.items(), key=lambda item: (item[1].status != "running", -item[1].began))
        for id, state in shown[:SHOWN_TRIALS]:
            bar: ProgressBar | Text = Text(state.status)
            if state.status == "running" and state.share is not None:
                bar = ProgressBar(total=1.0, completed=state.share, width=20)
            left = duration(state.seconds_left) if state.status == "running" and state.seconds_left is not None else ""
            table.add_row(self._labels[id], bar, duration(state.seconds), left, state.newest)
        table.caption = f"{self.done} of {self.total} trials done"
        return table


def progress_for(console: Console) -> Lines:
    """A live table if the console is a terminal, plain lines if not."""
    return LiveTable(console) if console.is_terminal else Lines(console)
