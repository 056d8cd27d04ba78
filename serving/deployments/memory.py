"""The memory of the requests under way at a replica: bounded for all of them and for each key, and given back.

What is freed stays with glibc, in a heap for each of many threads: of each up to 64 MiB and all that lies between what
is in use. So a replica has one heap, and some seconds after requests have ended its free pages go to the operating
system. Smaller bounds in glibc would not do: pages that come and go with every tensor take longer than convolutions.
"""

import asyncio
import ctypes
from collections.abc import Callable

from service.errors import BusyError, TooLargeError
from serving.deployments.computing import INLINE_BYTES, Computing
from serving.deployments.turns import Owner
from serving.http.messages import Readable
from serving.http.owners import SHARE
from serving.http.uploads import Upload

ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}  # in the environment of a replica from its start
TRIM_SECONDS = 5.0  # from the end of a request to the next trim, which takes milliseconds
_malloc_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone


class Memory:
    """Lives on one event loop. total: MiB."""

    def __init__(self, total: int) -> None:
        self._total, self._most_of_key = total << 20, int(SHARE * (total << 20))
        self._held = 0  # bytes
        self._held_by: dict[str, int] = {}  # of those, by the name of the key
        self._will_trim = False

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
        held = self._held_by.get(key, 0) + growth
        if growth > 0 and (held > self._most_of_key or self._held + growth > self._total):
            raise BusyError("the requests under way hold too much memory; send it again later")
        self._held += growth
        if held:
            self._held_by[key] = held
        else:
            self._held_by.pop(key, None)
        if growth < 0 and not self._will_trim and _malloc_trim is not None:
            self._will_trim = True
            asyncio.get_running_loop().call_later(TRIM_SECONDS, self._trim)

    def _trim(self) -> None:
        assert _malloc_trim is not None
        self._will_trim = False
        asyncio.get_running_loop().run_in_executor(None, _malloc_trim, 0)


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


async def to_read(message: Readable, upload: Upload | None, computing: Computing, owner: Owner) -> int:
    """Bytes that it takes at most to read a request. upload: how the model reads files.

    What is before the pixels or samples of a file may be as long as the file: it is read in a thread.
    """
    if not message.is_file or message.size <= INLINE_BYTES:
        return message.memory_for(upload)
    return await computing.long(owner, lambda pause: message.memory_for(upload))
