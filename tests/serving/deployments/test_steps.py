"""What is computed a step at a time, for somebody who may leave in the middle of one."""

import asyncio
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.deployments.computing import Computing
from serving.deployments.inference import Inference
from serving.deployments.turns import Pause

OWNER = ("key", "model")


def test_steps_come_in_order_and_what_is_left_in_the_middle_of_one_is_closed_after_it() -> None:
    begun, go_on, events = threading.Event(), threading.Event(), list[str]()

    def values() -> Iterator[int]:
        try:
            yield 1
            yield 2
            begun.set()
            go_on.wait()
            events.append("ended")
            yield 3
        finally:
            events.append("closed")

    async def main() -> None:
        server = cast(Any, SimpleNamespace(_computing=Computing(1)))
        steps = Inference._steps(server, OWNER, values())
        assert [await anext(steps), await anext(steps)] == [1, 2]
        reading = asyncio.ensure_future(anext(steps))
        await asyncio.to_thread(begun.wait)
        reading.cancel()
        await asyncio.wait([reading], timeout=0.05)
        assert not reading.done() and not events
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(main())
    assert events == ["ended", "closed"]


def test_what_nobody_waits_for_is_not_begun_and_holds_nothing() -> None:
    class Body:
        """What a request brought."""

    begun, go_on, computed = threading.Event(), threading.Event(), list[Any]()

    def hold_up(pause: Pause) -> None:
        begun.set()
        go_on.wait()

    async def main() -> None:
        computing, body = Computing(1), Body()
        held = weakref.ref(body)
        first = asyncio.ensure_future(computing.long(OWNER, hold_up))
        await asyncio.to_thread(begun.wait)
        left = asyncio.ensure_future(computing.long(OWNER, partial(lambda body, pause: computed.append(body), body)))
        del body
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.wait([left])
        del left
        is_held = held() is not None
        go_on.set()
        await first
        assert not is_held
        assert await computing.long(OWNER, lambda pause: "next") == "next"

    asyncio.run(main())
    assert not computed
