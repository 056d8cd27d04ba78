"""The memory of the requests under way at a replica, bounded for all of them and for each key."""

from collections import Counter

from service.errors import BusyError, TooLargeError

SHARE = 0.5  # of the memory, that of the requests of one key at most


class Memory:
    """Lives on one event loop. total: MiB."""

    def __init__(self, total: int) -> None:
        self._total, self._most_of_key = total << 20, int(SHARE * (total << 20))
        self._held: Counter[str] = Counter()  # bytes by the name of the key

    def change(self, key: str, size: int, before: int) -> None:
        """A request of a key holds `size` bytes, and no longer `before`. BusyError if there is no room for them now.

        TooLargeError if there never is.
        """
        if size > self._most_of_key:
            raise TooLargeError(
                f"a request must hold at most {self._most_of_key >> 20:,} MiB of memory, half of queue.memory_mb; "
                f"this one would hold {size >> 20:,}",
                "send fewer or smaller inputs, or ask for fewer outputs",
            )
        growth = size - before
        if growth > 0 and (self._held[key] + growth > self._most_of_key or self._held.total() + growth > self._total):
            raise BusyError("the requests under way hold too much memory; send it again later")
        self._held[key] += growth
        if not self._held[key]:
            del self._held[key]


class Holding:
    """The bytes that one request holds, as far as they are known; nothing at first."""

    def __init__(self, memory: Memory, key: str) -> None:
        self._memory, self._key, self._size = memory, key, 0

    def resize(self, size: int) -> None:
        """BusyError or TooLargeError as Memory.change."""
        self._memory.change(self._key, size, self._size)
        self._size = size

    def close(self) -> None:
        self.resize(0)
