"""The cells of a map: what names them, how one is computed, and where their results are kept.

A cell's result is a row of a parquet file, `cells/<map>/<content>/<part>.parquet`, with the result as the bytes that
`service.execution.checkpoints` makes of it. Nothing is pickled. The folder is that of a trial, or of the run, for all
its trials.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pyarrow as pa

from service import json_text
from service.errors import InputError, RunLockedError, StoreError
from service.execution import checkpoints, remarks
from service.execution.fan_out.sharing import Prepared
from service.execution.lock import RunLock
from service.execution.records import Failure, describe
from service.store import Folder

SMALL_PARTS = 32  # so many parts are joined into one
PART_BYTES = 64 << 20  # a part that is larger stays as it is
PART = ".parquet"
LOOK_SECONDS = 0.5  # between two looks at whether another trial has ended with a map

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("cell", pa.string()),
        ("result", pa.large_binary()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
        ("traceback", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("warnings", pa.list_(pa.string())),
    ]
)


def canonical(cell: Any, place: str) -> str:
    """A cell as JSON, written one way only. InputError if it is not numbers, text, bools, None, lists and dicts."""
    try:
        return json_text.dumps(cell, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{place} is not plain JSON: {error}") from error


def key_of(*content: str) -> str:
    """The name of a cell, or of what the cells of a map have in common: a digest of all that its result depends on."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def shown(cell: str) -> str:
    """A cell in a sentence."""
    return cell if len(cell) <= 120 else f"{cell[:120]}…"


class Outcome(NamedTuple):
    """What became of one cell. refusal: the cell said that the input of the whole map is wrong.

    notes, warnings: what it said about how it computed.
    """

    seconds: float
    result: bytes | None = None
    failure: Failure | None = None
    refusal: InputError | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def compute(fn: Callable[[Any, Any], Any], cells: Sequence[str], shared: Prepared) -> list[Outcome]:
    """Compute cells one after another. A cell that raises does not stop the others; one that refuses does."""
    outcomes: list[Outcome] = []
    for cell in cells:
        began, said = time.perf_counter(), remarks.Remarks()
        try:
            with remarks.heard_by(said):
                result = fn(json_text.loads(cell), shared.value)
            shared.check()
            seconds = time.perf_counter() - began
            outcome = Outcome(seconds, _encode(result, cell), notes=said.notes, warnings=said.warnings)
        except InputError as error:
            outcome = Outcome(time.perf_counter() - began, refusal=error)
        except Exception as error:
            outcome = Outcome(time.perf_counter() - began, failure=describe(error))
        outcomes.append(outcome)
        if outcome.refusal:
            break
    return outcomes


def _encode(result: Any, cell: str) -> bytes:
    try:
        return checkpoints.encode(result, "result")
    except TypeError as error:
        raise InputError(
            f"the result of cell {shown(cell)} cannot be kept: {error}",
            hint="return numbers, text, bools, None, arrays, tensors, or dicts and lists of them",
        ) from error


class CellStore:
    """The results of one map in its folder. `add` keeps them in memory, `flush` writes them as a part.

    common: whether other trials of the run use the same folder.
    """

    def __init__(self, folder: Folder, common: bool = False) -> None:
        self.folder = folder
        self.common = common
        self.pending_bytes = 0  # of the results that are to be written
        self._pending: list[dict[str, Any]] = []
        self._small: dict[str, list[dict[str, Any]]] = {}  # the small parts written so far

    def load(self, keys: set[str]) -> dict[str, bytes]:
        """Key -> result of each of these cells that has one, whose remarks are repeated. A cell that failed has none.

        The cells of other trials say nothing here, or a record would depend on which trial came first.
        """
        results: dict[str, bytes] = {}
        for part in self.folder.names():
            if not part.endswith(PART):
                continue
            try:
                rows = self.folder.read_rows(part, ["key", "result", "notes", "warnings"])
            except StoreError:
                if self.folder.exists(part):
                    raise
                return self.load(keys)  # another trial has joined it with others since we looked
            for row in rows:
                if row["result"] is not None and row["key"] in keys:
                    results[row["key"]] = row["result"]
                    remarks.repeat(row["notes"], row["warnings"])
        return results

    @contextmanager
    def alone(self, waiting: Callable[[], None]) -> Iterator[None]:
        """While no other trial computes cells of this map; until then `waiting` is called, and may raise.

        A trial whose process is gone is not waited for. On an object store, where nothing is exclusive, two that begin
        within the same moment may both go on: they compute the same and lose time only.
        """
        if not self.common:
            yield
            return
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(RunLock(self.folder, on_stop=lambda reason: None))
                    break
                except RunLockedError:
                    waiting()
                    time.sleep(LOOK_SECONDS)
            yield

    def add(self, key: str, cell: str, outcome: Outcome) -> None:
        row = {
            "key": key,
            "cell": cell,
            "result": outcome.result,
            "seconds": outcome.seconds,
            "notes": outcome.notes,
            "warnings": outcome.warnings,
        }
        if outcome.failure:
            row |= {"error": outcome.failure.message, "traceback": outcome.failure.traceback}
        self._pending.append(row)
        self.pending_bytes += len(outcome.result or b"")

    def flush(self) -> None:
        """Write what was added since the last time. Many small parts become one."""
        if not self._pending:
            return
        small = self.pending_bytes < PART_BYTES // SMALL_PARTS
        name = self._write(self._pending)
        if small:
            self._small[name] = self._pending
        self._pending, self.pending_bytes = [], 0
        if len(self._small) == SMALL_PARTS:
            self._write([row for rows in self._small.values() for row in rows])
            for name in self._small:
                self.folder.delete(name)
            self._small = {}

    def _write(self, rows: list[dict[str, Any]]) -> str:
        name = f"{uuid.uuid4().hex[:16]}{PART}"
        self.folder.write_table(name, pa.Table.from_pylist(rows, schema=_SCHEMA))
        return name
