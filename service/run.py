"""The handle that a job is given, and the folder of the store behind it.

A job writes all that it makes through its handle and knows neither Ray nor where files are. Each trial has a handle
on its own folder `trials/<id>/`; `summarize` gets one on the folder of the whole run.
"""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service import models
from service.catalog import Placement
from service.errors import InputError, StoreError
from service.execution import checkpoints, layout, records, remarks
from service.execution.devices import reserved_device
from service.execution.fan_out import mapping
from service.execution.fan_out.cells import CellStore, key_of
from service.execution.fan_out.mapping import Executor, FailedCells, InProcess
from service.execution.records import Artefact, TrialRemarks
from service.formatting import encodable
from service.handle import artefacts
from service.handle.rows import TRIAL, Report, Row, nowhere, table_of
from service.handle.trials import Trial
from service.models import CardDraft, ModelCard
from service.private_folder import private_folder
from service.provenance import derive_seed
from service.store import Folder

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn

__all__ = ["Estimate", "Placement", "Row", "Run", "Trial", "remarks", "reserved_device"]


@dataclass(frozen=True)
class Estimate:
    """What a trial would cost, for `assay check`.

    core_seconds: on one core of this machine; none: nobody can say before the data are there. multiply_adds: of all
    its networks. pieces: how many of its parts may be computed at the same time; 1 if it is all one.
    details: what else there is to know: counts, sizes or a sentence, by name.
    """

    core_seconds: float | None = None
    multiply_adds: float | None = None
    pieces: int = 1
    details: Mapping[str, float | str] = field(default_factory=dict)


@dataclass
class Written:
    """What a handle has written so far."""

    rows: list[Row] = field(default_factory=list)
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    """by path"""
    warnings: dict[str, None] = field(default_factory=dict)
    """in order, each once"""
    notes: dict[str, None] = field(default_factory=dict)
    """as warnings"""


class Run:
    """Logging, checkpoints, artefacts, models and seeds of one trial (or of the whole run, for `summarize`)."""

    def __init__(
        self,
        folder: Folder,
        seed: int,
        report: Report = nowhere,
        executor: Executor | None = None,
        store: Folder | None = None,
        common: Folder | None = None,
        placement: Placement | None = None,
    ) -> None:
        """folder: the trial's own. store: where models are loaded from. common: the folder of all trials of the run.

        placement: what the job says; none: a handle in a notebook, which may do everything.
        """
        self.folder = folder
        self.seed = seed
        self.placement = placement
        self.written = Written()
        self.failed_cells: list[FailedCells] = []
        self._inside_reserved = False
        self._report = report
        self._executor = executor or InProcess()
        self._store = store
        self._common = common
        self._total_steps: int | None = None
        self._started = time.monotonic()

    # ---- progress -------------------------------------------------------------------------------------------------

    def log(self, *, step: int, **metrics: float) -> None:
        """Append a row of metrics. Steps never go back. May end the trial, if the scheduler has had enough of it."""
        if step < self.step:
            raise ValueError(f"step must be at least {self.step}, the last one; it is {step}")
        if TRIAL in metrics:
            raise ValueError(
                f"a metric must not be called {TRIAL!r}: so is the column of the trials in the run's table"
            )
        row = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        self.rows.append(row)
        self._report(len(self.rows) - 1, row, self._total_steps)

    def expect(self, steps: int) -> None:
        """Say how many steps there will be, so that progress can tell the time left."""
        self._total_steps = steps

    def warn(self, sentence: str) -> None:
        """Warn whoever reads the results: printed, kept, at the top of the report. The same sentence counts once."""
        sentence = encodable(sentence)
        if sentence not in self.written.warnings:
            print(f"WARNING: {sentence}", flush=True)
            self.written.warnings[sentence] = None
            self._keep_remarks()

    def note(self, sentence: str) -> None:
        """Note how something was computed, at the top of the report. The same sentence counts once."""
        sentence = encodable(sentence)
        if sentence not in self.written.notes:
            self.written.notes[sentence] = None
            self._keep_remarks()

    def _keep_remarks(self) -> None:
        """Write them down now: a trial that a scheduler stops does not come to its end."""
        said = TrialRemarks(warnings=tuple(self.written.warnings), notes=tuple(self.written.notes))
        records.write(self.folder, layout.REMARKS, said)

    def take(self, index: int, row: Row, total_steps: int | None) -> None:
        """For executors: a row that was logged for this trial in another process; `index`: its place in the table."""
        self.rows[index:] = [row]
        self._report(index, row, total_steps)

    @property
    def rows(self) -> list[Row]:
        """All rows logged so far."""
        return self.written.rows

    @property
    def step(self) -> int:
        """The last step that was logged; 0 before the first."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def metrics(self) -> dict[str, float]:
        """The value last logged of each metric."""
        return {name: value for row in self.rows for name, value in row.items() if name != "step"}

    # ---- where it computes ----------------------------------------------------------------------------------------

    @property
    def device(self) -> "torch.device":
        """Where this process is to compute: a GPU if the spec reserved one for it, else the CPU.

        InputError in a job that fans out, outside of `run.reserved`. A cell asks `service.run.reserved_device()`.
        """
        return reserved_device()

    def reserved(self, fn: Callable[..., Any], *arguments: Any) -> Any:
        """fn(run, *arguments), computed where the spec's resources are reserved: for what a job that fans out trains.

        fn: a function at the top level of a module; it gets a handle on the same trial. Arguments and result travel
        between processes, so a network that is to come back is returned. If the worker is lost fn is called again, and
        goes on from its checkpoints. Within any other job this is a call of the function.
        """
        if self._inside_reserved:
            return fn(self, *arguments)
        return self._executor.reserved(self, fn, arguments)

    @contextmanager
    def inside_reserved(self) -> Iterator[None]:
        """For executors: what is done with this handle inside happens in a reservation."""
        self._inside_reserved = True
        try:
            yield
        finally:
            self._inside_reserved = False

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self, state: dict[str, Any], phase: str = "main") -> None:
        """Save the state of a phase: nested dicts and lists of tensors, arrays, numbers and text; whole or not at all.

        phase: a name of lower-case letters, digits and dashes. A trial that trains one thing and then another has a
        phase for each; that of a phase which is over stays, with its last state. The rows logged so far go into the
        same file, so that after a kill the two always agree.
        """
        self.folder.write(
            layout.checkpoint(_checked_phase(phase)),
            checkpoints.encode(
                {
                    "state": state,
                    "rows": self.rows,
                    "warnings": list(self.written.warnings),
                    "notes": list(self.written.notes),
                }
            ),
        )

    def restore(self, phase: str = "main") -> dict[str, Any] | None:
        """The state of a phase saved last, None if there is none. Rows logged after it are taken back.

        The rows before it are reported once more, so that a scheduler of a new driver knows what the old one knew.
        Phases are restored in the order in which they are computed.
        """
        name = layout.checkpoint(_checked_phase(phase))
        if not self.folder.exists(name):
            return None
        saved = checkpoints.decode(self.folder.read(name))
        self.written.rows = saved["rows"]
        self.written.warnings = dict.fromkeys(saved["warnings"])
        self.written.notes = dict.fromkeys(saved["notes"])
        self._keep_remarks()
        for index, row in enumerate(self.rows):
            self._report(index, row, self._total_steps)
        return dict(saved["state"])

    # ---- fan-out --------------------------------------------------------------------------------------------------

    def map(
        self, fn: Callable[[Any, Any], Any], cells: Sequence[Any], shared: Any = None, name: str | None = None
    ) -> list[Any]:
        """Compute fn(cell, shared) for every cell, on all workers there are. Results in the order of the cells.

        fn: a function at the top level of a module. It takes what is random from a seed in the cell.
        cells: numbers, text, bools, None, lists and dicts of them; fn gets them as JSON gives them back (a tuple as a
        list). shared: anything that can be pickled. Its arrays and tensors reach every worker once and are only to be
        read; a torch module in it is each worker's own and may be overwritten, if no cell relies on what the one
        before it left.
        A result is a number, text, bool, None, array, tensor (on the CPU), or dicts and lists of them. Each is kept
        when it arrives: after a kill only what is missing is computed, as long as name, fn, the cell and the content
        of shared are the same. A cell that raises twice has the result None; the run then ends as `partial`, and a
        resume tries it again. InputError raised by a cell ends the map.
        """
        return self._map(self.folder, fn, cells, shared, name)

    def map_across_trials(
        self, fn: Callable[[Any, Any], Any], cells: Sequence[Any], shared: Any = None, name: str | None = None
    ) -> list[Any]:
        """As `map`, and a cell that another trial of the run has computed is not computed again.

        For cells that take long and that points of a sweep have in common. What makes them the same is name, fn, the
        cell and the content of `shared`: leave out of these what a result does not depend on. Of trials at the same
        time one computes and the others wait for it, then compute what they still lack.
        A trial of several processes keeps its cells to itself.
        """
        if self._common is None:
            return self.map(fn, cells, shared, name)
        return self._map(self._common, fn, cells, shared, name)

    def _map(
        self, folder: Folder, fn: Callable[[Any, Any], Any], cells: Sequence[Any], shared: Any, name: str | None
    ) -> list[Any]:
        if self.placement not in (None, "fan_out") or self._inside_reserved:
            raise InputError(
                "run.map is for jobs that fan out, outside of run.reserved",
                hint='say PLACEMENT = "fan_out" in job.py, and compute what is not a cell with run.reserved(fn, …)',
            )
        work = mapping.prepare(name, fn, shared)
        kept = CellStore(
            layout.cells(folder, work.name, key_of(work.path, work.shared.digest)[:16]), common=folder is self._common
        )
        results, failed = mapping.map_cells(work, cells, kept, self._executor)
        if failed:
            self.failed_cells.append(failed)
        return results

    # ---- models ---------------------------------------------------------------------------------------------------

    def load_model(self, reference: str, trusted: tuple[str, ...] = ()) -> tuple["nn.Module", ModelCard]:
        """A model of the store and its card, in evaluation mode, on the CPU.

        reference: NAME, the newest version, or NAME/VERSION. trusted: see `service.models.load`. ModelNotFoundError
        names the nearest that exists; ModelError says what is wrong with its files; StoreError if there is no store.
        """
        if self._store is None:
            raise StoreError(f"model {reference!r}: this handle knows no model store")
        card = models.find(self._store, *models.parse_reference(reference))
        return models.load(self._store, card, trusted), card

    # ---- artefacts ------------------------------------------------------------------------------------------------

    def table(self, name: str, rows: Sequence[dict[str, Any]], title: str = "") -> None:
        """A table, kept as parquet and shown in the report. A row need not have every column: what it lacks is null."""
        self._keep("table", layout.TABLE.format(name), artefacts.parquet(rows), title)

    def figure(self, name: str, figure: "Figure", title: str = "") -> None:
        """A matplotlib figure, kept as PNG and shown in the report."""
        self._keep("figure", layout.FIGURE.format(name), artefacts.drawn(figure), title)

    def image(self, name: str, pixels: np.ndarray, title: str = "") -> None:
        """One image. pixels: uint8 (height, width, 3)."""
        self._keep("image", layout.IMAGE.format(name), artefacts.png(pixels), title)

    def audio(self, name: str, samples: np.ndarray, rate: int, title: str = "") -> None:
        """A sound, kept as WAV of 16 bits; the report shows a player and a log-mel spectrogram.

        samples: float (n,) or (n, channels) in [-1, 1]; rate: samples a second, up to a million. InputError if a sample
        is not finite; what is louder than 1 is clipped, with a warning.
        """
        if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating) or not samples.size:
            raise InputError(
                f"audio {name!r}: samples must be float (n,) or (n, channels), they are {samples.dtype} {samples.shape}"
            )
        if not 1 <= rate <= artefacts.HIGHEST_RATE:
            raise InputError(
                f"audio {name!r}: rate must be from 1 to {artefacts.HIGHEST_RATE:,} samples a second; it is {rate:,}"
            )
        if not np.isfinite(samples).all():
            raise InputError(f"audio {name!r}: samples must be finite numbers; some are not")
        if (peak := float(np.abs(samples).max())) > 1:
            self.warn(f"audio {name!r}: samples must be within [-1, 1]; the largest is {peak:.3g}, it is clipped")
        self._keep("audio", layout.AUDIO.format(name), artefacts.wav(samples, rate), title)

    def animation(
        self, name: str, frames: Sequence[np.ndarray], seconds_per_frame: float = 0.1, title: str = ""
    ) -> None:
        """A GIF that repeats. frames: uint8 (height, width, 3) each."""
        self._keep("animation", layout.ANIMATION.format(name), artefacts.gif(frames, seconds_per_frame), title)

    def array(self, name: str, values: np.ndarray, title: str = "") -> None:
        """A numeric array, kept as .npy."""
        self._keep("array", layout.ARRAY.format(name), artefacts.npy(values), title)

    def html(self, name: str, text: str, title: str = "") -> None:
        """A page of its own, such as an interactive figure; the report links to it. text: a whole HTML document."""
        self._keep("page", layout.PAGE.format(name), text.encode(), title)

    def file(self, name: str, content: bytes, title: str = "") -> str:
        """A file in a format of other programs; the report links to it. name: with its ending, e.g. "surface.vtp".

        Returns its path in the trial's folder.
        """
        path = layout.FILE.format(name)
        self._keep("file", path, content, title)
        return path

    def save_model(self, name: str, module: "nn.Module", draft: CardDraft) -> None:
        """Stage a trained model. When the run ends, of all trials that saved this name the best one's is published.

        FieldError if the store takes no such name. A job whose users choose the name checks it in its parameters, so
        that it is refused before anything is computed.
        """
        models.check_name(name)
        staged = {"weights": dict(module.state_dict()), "draft": draft.model_dump()}
        self._keep("model", layout.MODEL.format(name), checkpoints.encode(staged), draft.description)

    def _keep(self, kind: Any, path: str, data: bytes, title: str) -> None:
        self.folder.write(path, data)
        digest = hashlib.sha256(data).hexdigest()
        self.written.artefacts[path] = Artefact(path=path, kind=kind, title=title, bytes=len(data), sha256=digest)

    # ---- determinism ----------------------------------------------------------------------------------------------

    def seed_for(self, *key: str | int) -> int:
        """A seed in [0, 2^63) from the run's seed and a key: the same on every worker, in any order."""
        return derive_seed(self.seed, *key)

    @cached_property
    def cache(self) -> Path:
        """A folder on this node for data that can be made again. Anybody may empty it at any time."""
        if (named := os.environ.get("ASSAY_CACHE")) is None:
            return private_folder("assay-cache", tempfile.gettempdir())
        path = Path(named)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"ASSAY_CACHE must be a folder; {named!r}: {error.strerror}") from error
        return path

    # ---- for the service, not for jobs ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the rows logged so far as a table."""
        if self.rows:
            self.folder.write_table(layout.METRICS, table_of(self.rows))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started


def _checked_phase(phase: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", phase):
        raise InputError(f"phase must be up to 63 lower-case letters, digits and dashes; it is {phase!r}")
    return phase
