"""The threads of a replica. Short work has threads of its own, so that it never waits behind long work.

Long work gets a thread for each request, of which only a few compute at a time (serving.deployments.turns), at a lower
priority than short work.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serving.deployments.turns import Owner, Pause, Turns
from serving.kinds.work import Abandoned

T = TypeVar("T")

# A request that is larger, or becomes larger, is read in a thread, so that others are answered meanwhile: a picture of
# one colour has millions of pixels in a few thousand bytes.
INLINE_BYTES, INLINE_MEMORY = 8 << 10, 2 << 20
LONG_AT_ONCE = 64  # pieces of long work that have begun; more wait for one of them to end
NICE = 10  # added to the niceness of threads that compute long work


class Computing:
    """parallel: threads that compute short work at the same time, and as many again for long work."""

    def __init__(self, parallel: int) -> None:
        self._short = ThreadPoolExecutor(parallel, thread_name_prefix="short")
        self._long = ThreadPoolExecutor(LONG_AT_ONCE, thread_name_prefix="long", initializer=_lower_priority)
        self._turns = Turns(parallel)

    async def short(self, compute: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._short, compute)

    async def long(self, owner: Owner, compute: Callable[[Pause], T]) -> T:
        """compute: calls what it is given between its slices. It never begins when nobody waits for it any more."""
        waiting = [compute]

        def in_turn() -> T:
            with self._turns.turn(owner) as pause:
                try:
                    begun = waiting.pop()
                except IndexError:
                    raise Abandoned from None
                return begun(pause)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._long, in_turn)
        finally:
            waiting.clear()  # with it goes what it holds, as the body of a request


def _lower_priority() -> None:
    """Linux has a niceness for each thread."""
    thread = threading.get_native_id()
    niceness = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, min(19, niceness + NICE))
