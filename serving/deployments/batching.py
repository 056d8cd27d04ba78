"""Which requests are computed together, and when.

Requests that ask the same of the same model share a queue, and those of a queue form a batch. A batch waits while
another of its queue is computed, and the requests that come meanwhile join it: nobody waits where nothing is computed,
and under load batches grow by themselves. Serve's own batching would let the first request wait for a set time in any
case. Batches of different queues are computed side by side; long requests, in threads of their own, never delay short
ones. What takes less time than to pass it to a thread, as far as the last batch of its queue tells, is computed on the
event loop, at once. When a batch fails, its requests are computed one by one, so only the bad ones fail.
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
    """One request on its way through a batch. Its batch goes on without it when `answer` is cancelled.

    key: the name of whose it is.
    """

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


@dataclass(eq=False)
class Queue:
    """Requests that may be computed together. rows, seconds: of the last batch, in CPU time; at first, not brief."""

    is_long: bool
    waiting: deque[Item] = field(default_factory=deque)
    rows: int = 1
    seconds: float = BRIEF_SECONDS

    def is_brief(self, rows: int) -> bool:
        """Whether a batch of so many is expected to take less time than to pass it to a thread."""
        return not self.is_long and self.seconds * max(1.0, rows / self.rows) < BRIEF_SECONDS


@dataclass(frozen=True)
class Executed:
    """A batch that was computed, for the statistics. waited: seconds of each request. seconds: of the computation."""

    endpoint: Endpoint
    rows: int
    waited: tuple[float, ...]
    seconds: float


class Batcher:
    """Lives on one event loop; computes there what is brief, and all else in threads.

    max_rows: inputs in a batch. parallel: batches of short requests computed at once. report: called after each batch.
    """

    def __init__(self, max_rows: int, parallel: int, computing: Computing, report: Callable[[Executed], None]) -> None:
        self._max_rows, self._computing, self._report = max_rows, computing, report
        self._places = {False: parallel, True: LONG_AT_ONCE}  # free for batches in threads, by whether they are long
        self._queues: OrderedDict[Hashable, Queue] = OrderedDict()  # the latest asked last
        self._waiting: dict[Queue, None] = {}  # in the order of their turns
        self._running: dict[Queue, list[Item]] = {}  # batches that are computed in threads
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks by weak references only
        self._starting = False

    @property
    def running(self) -> Counter[tuple[str, int]]:
        """How many batches of each model, by name and version, are being computed."""
        cards = (batch[0].endpoint.card for batch in self._running.values())
        return Counter((card.name, card.version) for card in cards)

    def add(self, item: Item) -> None:
        """Queue a request; its answer arrives in its future. Those that came at the same moment are queued first."""
        key = item.queue
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(item.is_long)
            if len(self._queues) > QUEUES:
                self._queues.popitem(last=False)
        else:
            self._queues.move_to_end(key)
        queue.waiting.append(item)
        self._waiting[queue] = None
        self._start_soon()

    def leave(self, item: Item) -> None:
        """Nobody waits for a request any more: what it holds does not wait for the batch before it."""
        item.answer.cancel()
        queue = self._queues.get(item.queue)
        if queue is not None and item in queue.waiting:
            queue.waiting.remove(item)

    def _start_soon(self) -> None:
        if not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._starting = False
        for queue in list(self._waiting):
            if queue in self._running or not self._places[queue.is_long]:
                continue
            batch = self._take(queue)
            if batch and queue.is_brief(_rows(batch)):
                batch = self._compute_here(queue, batch)
                if self._waiting:
                    self._start_soon()  # first the loop takes its turn
                if not batch:
                    return
            if batch:
                self._places[queue.is_long] -= 1
                self._running[queue] = batch
                task = asyncio.get_running_loop().create_task(self._run(queue, batch))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _take(self, queue: Queue) -> list[Item]:
        del self._waiting[queue]
        batch: list[Item] = []
        rows = 0
        while queue.waiting and rows + queue.waiting[0].work.rows <= self._max_rows:
            item = queue.waiting.popleft()
            if not item.answer.done():
                batch.append(item)
                rows += item.work.rows
        if queue.waiting:
            self._waiting[queue] = None  # behind the other queues
        return batch

    def _compute_here(self, queue: Queue, batch: list[Item]) -> list[Item]:
        """Compute on the event loop. Returns what it has given up, which takes longer than was expected."""
        started = time.perf_counter()
        try:
            answers, queue.seconds = _timed(batch, lambda: time.perf_counter() > started + AT_MOST_SECONDS)
        except Abandoned:
            queue.rows, queue.seconds = _rows(batch), AT_MOST_SECONDS
            return batch
        except Exception as error:
            if _is_of_all(error, batch):
                _fail(batch, error)
                return []
            return [left for item in batch for left in self._compute_here(queue, [item])]
        queue.rows = _rows(batch)
        self._deliver(batch, answers, started)
        return []

    async def _run(self, queue: Queue, batch: list[Item]) -> None:
        try:
            await self._compute(queue, batch)
        finally:
            del self._running[queue]
            self._places[queue.is_long] += 1
            self._start()

    async def _compute(self, queue: Queue, batch: list[Item]) -> None:
        started = time.perf_counter()
        first = batch[0]

        def stopped() -> bool:
            return all(item.answer.done() for item in batch)

        def in_slices(pause: Pause) -> list[Answer]:
            def stopped_after_pause() -> bool:
                pause()
                return stopped()

            return first.endpoint.compute([item.work for item in batch], stopped_after_pause)

        try:
            if queue.is_long:
                answers = await self._computing.long((first.key, first.endpoint.card.name), in_slices)
            else:
                answers, queue.seconds = await self._computing.short(partial(_timed, batch, stopped))
                queue.rows = _rows(batch)
        except Abandoned:
            return
        except Exception as error:
            if _is_of_all(error, batch):
                _fail(batch, error)
            else:
                for item in batch:
                    await self._compute(queue, [item])
        else:
            self._deliver(batch, answers, started)

    def _deliver(self, batch: list[Item], answers: list[Answer], started: float) -> None:
        seconds = time.perf_counter() - started
        for item, answer in zip(batch, answers, strict=True):
            if not item.answer.done():
                item.answer.set_result(answer)
        waited = tuple(started - item.arrived for item in batch)
        self._report(Executed(batch[0].endpoint, _rows(batch), waited, seconds))


def _rows(batch: list[Item]) -> int:
    return sum(item.work.rows for item in batch)


def _timed(batch: list[Item], stopped: Stopped) -> tuple[list[Answer], float]:
    """The answers, and the CPU seconds that they took."""
    began = time.thread_time()
    return batch[0].endpoint.compute([item.work for item in batch], stopped), time.thread_time() - began


def _is_of_all(error: Exception, batch: list[Item]) -> bool:
    """Whether a batch has failed as a whole. Else something is wrong with one of it that validation did not see."""
    return isinstance(error, AssayError) or len(batch) == 1


def _fail(batch: list[Item], error: Exception) -> None:
    for item in batch:
        if not item.answer.done():
            item.answer.set_exception(error)
