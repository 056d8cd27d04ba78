"""Which requests are computed together, and when.

Requests that ask the same of the same model share a queue, and those of a queue form a batch. A batch waits while
another of its queue is computed, and the requests that come meanwhile join it: nobody waits where nothing is computed,
and under load batches grow by themselves. Serve's own batching would let the first request wait for a set time in any
case. Batches of different queues are computed side by side; long requests, in threads of their own, never delay short
ones. What takes less time than to pass it to a thread, as far as the last batch of its queue tells, is computed on the
event loop. When a batch fails, its requests are computed one by one, so only the bad ones fail.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial

from service.errors import AssayError
from serving.deployments.computing import LONG_AT_ONCE, Computing
from serving.deployments.turns import Pause
from serving.kinds.base import Endpoint
from serving.kinds.work import Abandoned, Answer, Stopped, Work

LONG_GMACS = 1.0  # 10^9 multiplications: some hundredths of a second on one core
# Of CPU time; what takes less is computed on the event loop: a thread would wait for the interpreter's lock as long,
# after each operation of torch, while the loop is busy.
BRIEF_SECONDS = 0.005
AT_MOST_SECONDS = 0.02  # after which the event loop gives up a computation that was to be brief
QUEUES = 1024  # of which it is remembered how long the last batch took


@dataclass(eq=False)
class Item:
    """One request on its way through a batch. Cancelling `answer` takes it out. key: the name of whose it is."""

    endpoint: Endpoint
    work: Work
    answer: asyncio.Future[Answer]
    key: str = ""
    arrived: float = field(default_factory=time.perf_counter)

    @property
    def is_long(self) -> bool:
        return self.work.gmacs >= LONG_GMACS

    @property
    def queue(self) -> Hashable:
        """Requests of one queue may be computed together. Long ones only with those of the same key."""
        card = self.endpoint.card
        return card.name, card.version, card.sha256, self.work.key, self.is_long, self.key if self.is_long else ""


@dataclass(frozen=True)
class Executed:
    """A batch that was computed, for the statistics. waited: seconds of each request. seconds: of the computation."""

    endpoint: Endpoint
    rows: int
    waited: tuple[float, ...]
    seconds: float


class Batcher:
    """Lives on one event loop; computes in threads.

    max_rows: inputs in a batch. parallel: batches of short requests computed at once. report: called after each batch.
    """

    def __init__(self, max_rows: int, parallel: int, computing: Computing, report: Callable[[Executed], None]) -> None:
        self._max_rows, self._computing, self._report = max_rows, computing, report
        self._at_once = {False: parallel, True: LONG_AT_ONCE}  # batches, by whether they are long
        self._waiting: dict[Hashable, deque[Item]] = {}  # the queues in the order of their turns
        self._running: dict[Hashable, list[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks by weak references only
        self._starting = False
        self._taken: OrderedDict[Hashable, tuple[int, float]] = (
            OrderedDict()
        )  # rows and CPU seconds of the last batches

    @property
    def running(self) -> Counter[tuple[str, int]]:
        """How many batches of each model, by name and version, are being computed."""
        return Counter(
            (batch[0].endpoint.card.name, batch[0].endpoint.card.version) for batch in self._running.values()
        )

    def add(self, item: Item) -> None:
        """Queue a request; its answer arrives in its future. Those that came at the same moment are queued first."""
        self._waiting.setdefault(item.queue, deque()).append(item)
        if not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._starting = False
        long = sum(batch[0].is_long for batch in self._running.values())
        running = {True: long, False: len(self._running) - long}
        for queue in list(self._waiting):
            is_long = self._waiting[queue][0].is_long
            if running[is_long] == self._at_once[is_long]:
                continue
            if queue not in self._running and (batch := self._take(queue)):
                running[is_long] += 1
                self._running[queue] = batch
                task = asyncio.get_running_loop().create_task(self._run(queue, batch))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _take(self, queue: Hashable) -> list[Item]:
        items = self._waiting.pop(queue)
        batch: list[Item] = []
        rows = 0
        while items and rows + items[0].work.rows <= self._max_rows:
            item = items.popleft()
            if not item.answer.done():
                batch.append(item)
                rows += item.work.rows
        if items:
            self._waiting[queue] = items  # behind the other queues
        return batch

    async def _run(self, queue: Hashable, batch: list[Item]) -> None:
        try:
            await self._compute(batch)
        finally:
            del self._running[queue]
            self._start()

    async def _compute(self, batch: list[Item]) -> None:
        started = time.perf_counter()

        first, works = batch[0], [item.work for item in batch]

        def stopped() -> bool:
            return all(item.answer.done() for item in batch)

        def in_slices(pause: Pause) -> list[Answer]:
            def stopped_after_pause() -> bool:
                pause()
                return stopped()

            return first.endpoint.compute(works, stopped_after_pause)

        try:
            if first.is_long:
                answers = await self._computing.long((first.key, first.endpoint.card.name), in_slices)
            else:
                answers = await self._short(first, works, stopped)
        except Abandoned:
            return
        except AssayError as error:
            _fail(batch, error)
        except Exception as error:  # something is wrong with one of them that validation did not see
            if len(batch) == 1:
                _fail(batch, error)
            else:
                for item in batch:
                    await self._compute([item])
        else:
            seconds = time.perf_counter() - started
            for item, answer in zip(batch, answers, strict=True):
                if not item.answer.done():
                    item.answer.set_result(answer)
            waited = tuple(started - item.arrived for item in batch)
            self._report(Executed(batch[0].endpoint, sum(item.work.rows for item in batch), waited, seconds))

    async def _short(self, first: Item, works: list[Work], stopped: Stopped) -> list[Answer]:
        """Compute on the event loop what is expected to be brief, and anything else in a thread."""
        queue, rows = first.queue, sum(work.rows for work in works)
        before, seconds = self._taken.get(queue, (1, BRIEF_SECONDS))
        if seconds * max(1.0, rows / before) < BRIEF_SECONDS:
            until = time.perf_counter() + AT_MOST_SECONDS
            try:
                answers, seconds = _timed(first, works, lambda: time.perf_counter() > until)
                self._note(queue, rows, seconds)
                return answers
            except Abandoned:
                self._note(queue, rows, AT_MOST_SECONDS)
        answers, seconds = await self._computing.short(partial(_timed, first, works, stopped))
        self._note(queue, rows, seconds)
        return answers

    def _note(self, queue: Hashable, rows: int, seconds: float) -> None:
        self._taken[queue] = rows, seconds
        self._taken.move_to_end(queue)
        if len(self._taken) > QUEUES:
            self._taken.popitem(last=False)


def _timed(first: Item, works: list[Work], stopped: Stopped) -> tuple[list[Answer], float]:
    """The answers, and the CPU seconds that they took."""
    began = time.thread_time()
    return first.endpoint.compute(works, stopped), time.thread_time() - began


def _fail(batch: list[Item], error: Exception) -> None:
    for item in batch:
        if not item.answer.done():
            item.answer.set_exception(error)
