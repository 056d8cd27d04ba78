"""How many requests are passed on at the same time: as many as the replicas take. The others wait their turn here.

Serve's router has no queue: it looks for a free place again and again, ever more seldom, and where many wait it spends
its time on looking. So what it could not place at once waits here, first come, first served. What is too much gets 503.
"""

import asyncio
from collections import Counter

from service.errors import BusyError
from serving.http.owners import SHARE


class Places:
    """at_once: requests that are passed on. waiting: that may wait. Of a key half of them at most."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._here = 0
        self._of_key: Counter[str] = Counter()

    async def enter(self, key: str | None) -> None:
        """Wait for a place. BusyError if too many wait already. key: the name of whose the request is, if known."""
        if self._here == self._most or (key and self._of_key[key] >= SHARE * self._most):
            raise BusyError("too many requests wait; send it again later")
        self._count(key, 1)
        try:
            await self._places.acquire()
        except asyncio.CancelledError:
            self._count(key, -1)
            raise

    def leave(self, key: str | None) -> None:
        self._places.release()
        self._count(key, -1)

    def _count(self, key: str | None, change: int) -> None:
        self._here += change
        if key:
            self._of_key[key] += change
