"""What requests hold is counted, bounded for all and for each key, and given back."""

import asyncio
import os
import threading
from contextlib import suppress
from typing import Any

import psutil
import pytest

from service.errors import BusyError, TooLargeError
from serving.deployments import memory as memory_of_replica
from serving.deployments.computing import Computing
from serving.deployments.memory import ONE_HEAP, Holding, Memory, to_read
from tests.processes import titles
from tests.serving import virtual_time
from tests.serving.conftest import Served

MB = 2**20


def test_a_key_gets_half_and_all_keys_together_the_whole() -> None:
    async def run() -> None:
        memory = Memory(100)
        first, second = Holding(memory, "a"), Holding(memory, "a")
        first.resize(30 * MB)
        second.resize(20 * MB)
        with pytest.raises(BusyError, match="hold too much memory"):
            second.resize(21 * MB)
        Holding(memory, "b").resize(50 * MB)
        with pytest.raises(BusyError):
            Holding(memory, "c").resize(1)
        first.resize(29 * MB)
        Holding(memory, "c").resize(1 * MB)
        first.close()
        first.close()
        Holding(memory, "a").resize(29 * MB)

    asyncio.run(run())


def test_what_never_has_room_is_too_large() -> None:
    holding = Holding(Memory(100), "a")
    with pytest.raises(
        TooLargeError, match="at most 50 MiB of memory, half of queue.memory_mb; this one would hold 51"
    ):
        holding.resize(51 * MB)
    holding.resize(50 * MB)


def test_free_pages_are_given_back_some_seconds_after_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after each of them: one time for all that end within the seconds."""
    trims: list[int] = []
    monkeypatch.setattr(memory_of_replica, "_malloc_trim", lambda pad: trims.append(pad) or 1)

    async def run() -> None:
        memory = Memory(100)
        for _ in range(3):
            holding = Holding(memory, "a")
            holding.resize(MB)
            holding.close()
        await asyncio.sleep(memory_of_replica.TRIM_SECONDS - 1)
        assert not trims
        await asyncio.sleep(2)
        assert trims == [0]
        await asyncio.sleep(10 * memory_of_replica.TRIM_SECONDS)
        assert trims == [0], "an idle replica is left alone"

    virtual_time.run(run())


@pytest.mark.parametrize("is_file", [True, False])
def test_the_header_of_a_file_is_read_in_a_thread(is_file: bool) -> None:
    """It may be millions of chunks long, and nobody else would be answered meanwhile."""
    threads: list[threading.Thread] = []

    class Sent:
        size = 1 << 20

        def memory_for(self, upload: object) -> int:
            threads.append(threading.current_thread())
            return 7

    message: Any = Sent()
    message.is_file = is_file
    assert asyncio.run(to_read(message, None, Computing(1), ("", ""))) == 7
    assert (threads == [threading.current_thread()]) != is_file


def test_replicas_have_one_heap(served: Served) -> None:
    """What is in the heaps of other threads is not given back."""
    heaps = set()
    for process, title in titles(os.getpid()).items():
        with suppress(psutil.Error):
            if "ServeReplica" in title:
                heaps.add(process.environ().get("MALLOC_ARENA_MAX"))
    assert heaps == {ONE_HEAP["MALLOC_ARENA_MAX"]}
