"""Fan out: many small independent cells, computed in chunks by whoever executes them, each result kept at once.

The loop here is the same for Ray's workers and for this process (`InProcess`, the serial twin): which cells are
missing, how large a chunk is, what is written when, which cell is tried again. An executor only computes chunks.
"""

import functools
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.errors import InputError
from service.execution import checkpoints, devices, remarks
from service.execution.fan_out import cells, sharing
from service.execution.fan_out.cells import CellStore, Outcome
from service.execution.records import Failure

CHUNK_SECONDS = 1.5  # of work in one task: long against a task's millisecond, short against what a kill may lose
LEAST_SECONDS = 0.05  # chunks shrink towards the end, but not below
CHUNK_BYTES = 32 << 20  # of results in one task
CHUNKS_PER_WORKER = 4  # so many are left for each worker when a chunk is cut, so that all of them end together
FLUSH_SECONDS = 2.0
MOST_TOLD = 100  # failed cells that are told of at once, one by one; all of them are in the store


@dataclass(frozen=True)
class Work:
    """The function of a map and what its cells share."""

    name: str
    fn: Callable[[Any, Any], Any]
    path: str  # module:qualified.name of fn
    shared: sharing.Packed


@dataclass(frozen=True)
class Chunk:
    """Cells that are computed by one task. again: a single cell that failed before."""

    cells: tuple[str, ...]
    again: bool = False


@dataclass(frozen=True)
class CellProgress:
    """How far a map is. done: cells with a result, failed: without one for good.

    computed: those of `done` that this map computed, and did not find. lost: cell and reason of those that failed since
    the last time.
    """

    name: str
    done: int
    total: int
    failed: int
    per_second: float
    seconds_left: float | None
    computed: int = 0
    lost: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.name} {self.done:,}/{self.total:,} cells, {self.per_second:.3g}/s{failed}"


@dataclass(frozen=True)
class Capacity:
    """workers: chunks computed at the same time; in_flight: chunks handed over at the same time."""

    workers: int
    in_flight: int


class Pool(Protocol):
    """Computes the chunks of one map."""

    def capacity(self) -> Capacity: ...

    def submit(self, chunk: Chunk) -> None: ...

    def finished(self) -> list[tuple[Chunk, list[Outcome] | Failure]]:
        """Chunks that are done, after waiting for one for up to a second. A Failure: its worker died, repeatedly."""

    def close(self) -> None:
        """Cancel what is in flight."""


class Executor(Protocol):
    """Where chunks are computed, and who is told how far they are. `tell` may end the trial by raising."""

    max_failures: int

    def pool(self, work: Work) -> Pool: ...

    def reserved(self, run: Any, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """fn(run, *arguments) inside a reservation. run: the trial's handle."""

    def tell(self, progress: CellProgress) -> None: ...


class InProcess:
    """The serial twin: chunks are computed in this process, one after another.

    gpus: those that are reserved for it.
    """

    def __init__(
        self,
        tell: Callable[[CellProgress], None] = lambda progress: None,
        max_failures: int = 2,
        gpus: float = 0.0,
    ) -> None:
        self.tell = tell
        self.max_failures = max_failures
        self.gpus = gpus

    def pool(self, work: Work) -> Pool:
        return _OneByOne(work, self.gpus)

    def reserved(self, run: Any, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        with devices.reservation(self.gpus), run.inside_reserved():
            return fn(run, *arguments)


class _OneByOne:
    def __init__(self, work: Work, gpus: float) -> None:
        self.fn, self.shared, self.gpus = work.fn, sharing.unpack(work.shared), gpus
        self.chunks: deque[Chunk] = deque()

    def capacity(self) -> Capacity:
        return Capacity(workers=1, in_flight=1)

    def submit(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def finished(self) -> list[tuple[Chunk, list[Outcome] | Failure]]:
        chunk = self.chunks.popleft()
        with devices.reservation(self.gpus):
            return [(chunk, cells.compute(self.fn, chunk.cells, self.shared))]

    def close(self) -> None:
        self.chunks.clear()


@dataclass(frozen=True)
class FailedCells:
    """The cells of one map that have no result."""

    name: str
    count: int
    total: int
    first: str
    failure: Failure  # of the first

    def __str__(self) -> str:
        return f"{self.count} of {self.total} cells of {self.name} failed, first {self.first}: {self.failure.message}"


def prepare(name: str | None, fn: Callable[[Any, Any], Any], shared: Any) -> Work:
    """Check what a map is given, and take `shared` apart. InputError if a worker could not find `fn`."""
    module, qualified = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "")
    try:
        named: Any = functools.reduce(getattr, qualified.split("."), sys.modules[str(module)])
    except (KeyError, AttributeError):
        named = None
    if named is not fn:
        raise InputError(f"run.map: {fn!r} is not a function of a module", hint="define it with `def` at the top level")
    name = name or fn.__name__
    if not re.fullmatch(r"\w[\w.-]{0,63}", name, re.ASCII):
        raise InputError(f"run.map: the name {name!r} has other than letters, digits, dots and dashes, or over 64")
    return Work(name, fn, f"{module}:{qualified}", sharing.pack(shared))


def map_cells(
    work: Work, values: Sequence[Any], store: CellStore, executor: Executor
) -> tuple[list[Any], FailedCells | None]:
    """Results in the order of the cells, None for a cell that failed; and which failed, None if all have a result.

    Each cell is computed once, also if it occurs twice, had been computed before a kill, or by another trial with the
    same store. A cell that raises is tried a second time, alone, unless max_failures is 0. An InputError of a cell ends
    the map.
    """
    texts = [cells.canonical(value, f"run.map {work.name}: cell {index}") for index, value in enumerate(values)]
    keys = {text: cells.key_of(work.name, work.path, work.shared.digest, text) for text in texts}
    loop = _Loop(work.name, store, executor, keys)
    if loop.waiting:
        with store.alone(lambda: executor.tell(loop.progress())):
            loop.look()  # what is there by now
            if loop.waiting:
                loop.run(executor.pool(work))
    executor.tell(loop.progress())
    results = [checkpoints.decode(loop.results[text]) if text in loop.results else None for text in texts]
    failed = [text for text in keys if text in loop.failures]
    if not failed:
        return results, None
    first = failed[0]
    return results, FailedCells(work.name, len(failed), len(keys), cells.shown(first), loop.failures[first])


class _Loop:
    """The state of a map while it is being computed."""

    def __init__(self, name: str, store: CellStore, executor: Executor, keys: dict[str, str]) -> None:
        self.name, self.store, self.executor = name, store, executor
        self.keys = keys  # cell -> its name in the store
        self.failures: dict[str, Failure] = {}
        self.untold: list[tuple[str, str]] = []
        self.again: deque[str] = deque()
        self.pace = Pace()
        self.look()

    def look(self) -> None:
        """See which cells have a result; the others wait."""
        kept = self.store.load(set(self.keys.values())) if self.keys else {}
        self.results = {text: kept[key] for text, key in self.keys.items() if key in kept}
        self.waiting = deque(text for text in self.keys if text not in self.results)
        self.known = len(self.results)
        self.began = time.monotonic()

    def run(self, pool: Pool) -> None:
        flying = 0
        refusal: InputError | None = None
        reported_at = float("-inf")
        try:
            while flying or self.waiting or self.again:
                capacity = pool.capacity()
                while flying < capacity.in_flight and (self.waiting or self.again):
                    pool.submit(self._next_chunk(capacity.workers))
                    flying += 1
                if time.monotonic() - reported_at >= FLUSH_SECONDS or self.store.pending_bytes > cells.PART_BYTES:
                    # written first: whoever is told may end the trial here
                    self.store.flush()
                    self.executor.tell(self.progress())
                    reported_at = time.monotonic()
                for chunk, outcomes in pool.finished():
                    flying -= 1
                    refusal = self._take(chunk, outcomes) or refusal
                if refusal:
                    raise refusal
        finally:
            pool.close()
            self.store.flush()

    def _next_chunk(self, workers: int) -> Chunk:
        if self.again:
            return Chunk((self.again.popleft(),), again=True)
        size = self.pace.chunk_size(len(self.waiting), workers)
        return Chunk(tuple(self.waiting.popleft() for _ in range(size)))

    def _take(self, chunk: Chunk, outcomes: list[Outcome] | Failure) -> InputError | None:
        if isinstance(outcomes, Failure):
            if len(chunk.cells) > 1:  # each alone: one of them may be to blame
                self.again.extend(chunk.cells)
            else:
                self._fail(chunk.cells[0], Outcome(0.0, failure=outcomes))
            return None
        self.pace.learn(outcomes)
        for text, outcome in zip(chunk.cells, outcomes, strict=False):  # a refusal ends the chunk
            if outcome.refusal:
                return outcome.refusal
            if outcome.result is not None:
                remarks.repeat(outcome.notes, outcome.warnings)
                self.results[text] = outcome.result
                self.store.add(self.keys[text], text, outcome)
            elif chunk.again or self.executor.max_failures == 0:
                self._fail(text, outcome)
            else:
                self.again.append(text)
        return None

    def _fail(self, text: str, outcome: Outcome) -> None:
        assert outcome.failure is not None
        self.failures[text] = outcome.failure
        self.untold.append((cells.shown(text), outcome.failure.message))
        self.store.add(self.keys[text], text, outcome)

    def progress(self) -> CellProgress:
        done, lost, self.untold = len(self.results), tuple(self.untold[:MOST_TOLD]), []
        computed = done - self.known
        per_second = computed / max(time.monotonic() - self.began, 1e-9)
        left = len(self.keys) - done - len(self.failures)
        seconds_left = left / per_second if per_second else None
        failed = len(self.failures)
        return CellProgress(self.name, done, len(self.keys), failed, per_second, seconds_left, computed, lost)


@dataclass
class Pace:
    """What a cell takes, learned from the chunks that are done, the later ones more."""

    seconds: float | None = None
    bytes: float = 0.0

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        seconds = sum(each.seconds for each in outcomes) / len(outcomes)
        size = sum(len(each.result or b"") for each in outcomes) / len(outcomes)
        first = self.seconds is None
        self.seconds = seconds if self.seconds is None else (self.seconds + seconds) / 2
        self.bytes = size if first else (self.bytes + size) / 2

    def chunk_size(self, waiting: int, workers: int) -> int:
        """How many of the waiting cells the next task gets, at least 1; exactly 1 until a cell has been measured."""
        if self.seconds is None:
            return 1
        cell = max(self.seconds, 1e-6)
        fair = max(waiting / (CHUNKS_PER_WORKER * workers), LEAST_SECONDS / cell)
        return int(max(1, min(waiting, CHUNK_SECONDS / cell, CHUNK_BYTES / max(self.bytes, 1), fair)))
