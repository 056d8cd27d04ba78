"""Which requests are computed together: equal ones, without waiting for long ones, without failing for bad ones."""

import asyncio
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from service.errors import BusyError
from service.models import ModelCard
from serving.deployments.batching import LONG_GMACS, Batcher, Executed, Item
from serving.deployments.computing import Computing
from serving.http.messages import TENSORS, Form
from serving.kinds.work import Abandoned, Answer, Stopped, Work
from tests.serving.models import draft

CARD = ModelCard(
    **draft().model_dump(), name="m", version=1, created="", parameters=1, bytes=1, sha256="", run=None
)  # fmt: skip


class Echo:
    """Answers with its inputs. gate: computes only while it is open. A row of 13 breaks a batch, one of 14 is busy."""

    card, inputs, outputs = CARD, (), ()

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[list[int]]] = []

    def prepare(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any], form: Form = TENSORS) -> Work:
        raise NotImplementedError

    def stream(self, work: Work) -> Iterator[tuple[str, Answer]]:
        raise NotImplementedError

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        while not self.gate.wait(0.01):
            if stopped():
                raise Abandoned
        rows = [work.inputs.tolist() for work in works]
        self.batches.append(rows)
        if any(13 in each for each in rows):
            raise RuntimeError("thirteen")
        if any(14 in each for each in rows):
            raise BusyError("fourteen")
        if works[0].options == "slow":
            time.sleep(0.3)
        return [{"x": work.inputs} for work in works]


class Bench:
    """A batcher with its reports, and requests made of numbers."""

    def __init__(self, max_rows: int = 4, parallel: int = 1) -> None:
        self.echo = Echo()
        self.reports: list[Executed] = []
        self.batcher = Batcher(max_rows, parallel, Computing(parallel), self.reports.append)

    def item(self, *rows: int, key: str = "", options: str = "", gmacs: float = 0.0, owner: str = "") -> Item:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        return Item(self.echo, Work(np.array(rows), key, options, gmacs), answer, owner)

    def add(self, *items: Item) -> None:
        for item in items:
            self.batcher.add(item)

    def held(self) -> "Bench":
        """Nothing is computed until the gate opens."""
        self.echo.gate.clear()
        return self


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(bounded())


async def answers(*items: Item) -> list[list[int]]:
    return [(await item.answer)["x"].tolist() for item in items]


def test_requests_that_come_together_are_computed_together() -> None:
    async def test() -> None:
        bench = Bench()
        items = [bench.item(1), bench.item(2, 3), bench.item(4)]
        bench.add(*items)
        assert await answers(*items) == [[1], [2, 3], [4]]
        assert bench.echo.batches == [[[1], [2, 3], [4]]]
        (report,) = bench.reports
        assert report.rows == 4 and len(report.waited) == 3 and report.seconds > 0

    run(test)


def test_whoever_comes_while_a_batch_is_computed_forms_the_next() -> None:
    async def test() -> None:
        bench = Bench().held()
        items = [bench.item(number) for number in range(7)]
        bench.add(items[0])
        await asyncio.sleep(0)
        bench.add(*items[1:])
        bench.echo.gate.set()
        await answers(*items)
        assert bench.echo.batches == [[[0]], [[1], [2], [3], [4]], [[5], [6]]]

    run(test)


def test_kinds_are_not_mixed_and_take_turns() -> None:
    async def test() -> None:
        bench = Bench(max_rows=1).held()
        items = [bench.item(number, key="ab"[number % 2]) for number in range(6)]
        bench.add(*items)
        bench.echo.gate.set()
        await answers(*items)
        assert bench.echo.batches == [[[0]], [[1]], [[2]], [[3]], [[4]], [[5]]]

    run(test)


def test_a_long_thought_holds_up_no_other_kind() -> None:
    async def test() -> None:
        bench = Bench(parallel=2)
        slow, quick = bench.item(1, key="slow", options="slow"), bench.item(2, key="quick")
        bench.add(slow, quick)
        await quick.answer
        assert not slow.answer.done()
        await slow.answer

    run(test)


def test_one_that_fails_fails_alone() -> None:
    async def test() -> None:
        bench = Bench()
        items = [bench.item(1), bench.item(13), bench.item(2)]
        bench.add(*items)
        assert await answers(items[0], items[2]) == [[1], [2]]
        with pytest.raises(RuntimeError, match="thirteen"):
            await items[1].answer
        assert [report.rows for report in bench.reports] == [1, 1]

    run(test)


def test_one_that_fails_on_the_loop_fails_alone() -> None:
    async def test() -> None:
        bench = Bench()
        bench.echo = watched = Watched()
        items = [bench.item(1), bench.item(13), bench.item(2)]
        bench.add(known := bench.item(0))
        await known.answer
        bench.add(*items)
        assert await answers(items[0], items[2]) == [[1], [2]]
        with pytest.raises(RuntimeError, match="thirteen"):
            await items[1].answer
        assert set(watched.threads[1:]) == {threading.current_thread().name}

    run(test)


def test_between_two_batches_on_the_loop_it_takes_its_turn() -> None:
    async def test() -> None:
        bench = Bench()
        bench.add(*(known := [bench.item(0, key="a"), bench.item(0, key="b")]))
        await answers(*known)
        bench.add(*(both := [bench.item(1, key="a"), bench.item(2, key="b")]))
        asyncio.get_running_loop().call_soon(lambda: turns.append(both[1].answer.done()))
        turns: list[bool] = []
        assert await answers(*both) == [[1], [2]] and turns == [False]

    run(test)


def test_what_is_said_of_a_whole_batch_is_not_tried_again() -> None:
    async def test() -> None:
        bench = Bench()
        items = [bench.item(1), bench.item(14)]
        bench.add(*items)
        for item in items:
            with pytest.raises(BusyError):
                await item.answer
        assert len(bench.echo.batches) == 1

    run(test)


def test_a_request_whose_client_left_is_not_computed_and_holds_nothing() -> None:
    """What it had sent is not counted as held any more, and the batch before it may take minutes."""

    async def test() -> None:
        bench = Bench().held()
        first, left, stays = bench.item(0), bench.item(1), bench.item(2)
        bench.add(first)
        await asyncio.sleep(0)
        bench.add(left, stays)
        held = weakref.ref(left.work)
        bench.batcher.leave(left)
        del left
        assert held() is None
        bench.echo.gate.set()
        assert await answers(first, stays) == [[0], [2]]
        assert bench.echo.batches == [[[0]], [[2]]]

    run(test)


def test_a_batch_is_abandoned_when_all_its_clients_left_and_not_before() -> None:
    async def test() -> None:
        bench = Bench().held()
        batch = [bench.item(1), bench.item(2)]
        after = bench.item(3)
        bench.add(*batch)
        await asyncio.sleep(0)
        bench.add(after)
        batch[0].answer.cancel()
        await asyncio.sleep(0.1)
        assert not after.answer.done() and not bench.echo.batches
        batch[1].answer.cancel()
        await asyncio.sleep(0.1)
        bench.echo.gate.set()
        assert await answers(after) == [[3]]
        assert bench.echo.batches == [[[3]]]

    run(test)


def test_short_requests_do_not_wait_for_long_ones() -> None:
    async def test() -> None:
        bench = Bench().held()
        long = [bench.item(number, key=str(number), gmacs=LONG_GMACS) for number in range(5)]
        bench.add(*long)
        while sum(bench.batcher.running.values()) < 5:  # all begin, and one of them computes
            await asyncio.sleep(0.01)
        other = Bench()
        bench.add(short := Item(other.echo, Work(np.array([7]), "", ""), asyncio.Future()))
        assert await answers(short) == [[7]]
        assert not any(item.answer.done() for item in long)
        bench.echo.gate.set()
        assert await answers(*long) == [[0], [1], [2], [3], [4]]

    run(test)


def test_long_requests_of_two_keys_are_not_one_batch() -> None:
    async def test() -> None:
        bench = Bench().held()
        items = [bench.item(number, gmacs=LONG_GMACS, owner="ab"[number % 2]) for number in range(4)]
        bench.add(*items)
        bench.echo.gate.set()
        await answers(*items)
        assert sorted(bench.echo.batches) == [[[0], [2]], [[1], [3]]]

    run(test)


class Watched(Echo):
    """Keeps the threads in which it computes. seconds: that the next computations take."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []
        self.seconds = 0.0

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        self.threads.append(threading.current_thread().name)
        began = time.thread_time()
        while time.thread_time() - began < self.seconds:
            if stopped():
                raise Abandoned
        return super().compute(works, stopped)


def test_what_was_brief_is_computed_on_the_loop_until_it_is_not() -> None:
    async def test() -> None:
        bench = Bench()
        bench.echo = watched = Watched()
        here = threading.current_thread().name

        async def ask(key: str = "") -> str:
            item = bench.item(1, key=key)
            bench.add(item)
            assert await answers(item) == [[1]]
            return watched.threads[-1]

        assert await ask() != here, "how long it takes is not known yet"
        assert await ask() == here
        assert await ask("other") != here
        watched.seconds = 0.1
        assert await ask() != here
        assert watched.threads[-2] == here, "it was given up after some milliseconds"
        assert await ask() != here and watched.threads[-2] != here
        watched.seconds = 0.0
        assert await ask() != here
        assert await ask() == here

    run(test)
