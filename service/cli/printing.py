"""How the commands print data."""

import os
import shlex
import sys
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from service import json_text
from service.cli.options import DEFAULT_STORE
from service.execution import history, layout
from service.execution.records import Artefact, RunRecord
from service.formatting import duration
from service.store import Folder

PIPE_WIDTH = 200  # columns when nobody tells how wide the output is


class TolerantStream:
    """A stream for what goes on without its reader: as in `assay run … | head`, or when the terminal is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """From now on what is written goes nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console() -> Console:
    """Standard output as it is now: commands that run move it aside for a while."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    print(json_text.dumps(value, marked=False, indent=2))


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Rows as a table with a header, as wide as the terminal."""
    if not rows:
        print("none")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()])
    console().print(table, highlight=False, markup=False)


def print_verdict(state: RunRecord, folder: Folder, steps: list[str]) -> None:
    """How a run stands, what to know about its results, where everything is, and what to do next."""
    out = console()
    style = {"finished": "green", "partial": "yellow", "cancelled": "yellow", "running": "cyan"}.get(
        state.status, "red"
    )
    counts = f"{state.trials_done} of {state.trials} trials, {duration(state.seconds)}"
    out.print(f"[{style}]{state.status}[/{style}]: {counts}", highlight=False)
    for sentence in history.warnings(state, history.trials(folder)):
        out.print("  [yellow]warning[/yellow]", end=" ", highlight=False)
        out.print(sentence, markup=False, highlight=False, soft_wrap=True)
    lines = [("report", folder.uri_of(layout.REPORT))] if folder.exists(layout.REPORT) else []
    lines += [("figure", folder.uri_of(each.path)) for each in state.artefacts if _is_figure(each)]
    lines += [("model", name) for name in state.models]
    lines += [("next", command) for command in steps]
    for name, value in lines:
        out.print(f"  {name:8}{value}", markup=False, highlight=False, soft_wrap=True)


def _is_figure(artefact: Artefact) -> bool:
    """Whether it is a figure of the whole run."""
    return artefact.kind == "figure" and layout.place(artefact.path).trial is None


def next_steps(state: RunRecord, store: str) -> list[str]:
    """The commands that suit a run as it is now."""
    where = "" if store == os.environ.get("ASSAY_STORE", DEFAULT_STORE) else f" --store {shlex.quote(store)}"
    steps = [f"assay show {state.id}{where}"]
    if state.status in ("lost", "cancelled", "partial", "failed"):
        steps.append(f"assay resume {state.id}{where}")
    if state.models:
        steps.append(f"assay serve{where}")
    return steps
