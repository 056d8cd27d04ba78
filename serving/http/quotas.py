"""What each key has left: of its requests, and of the work of its attacks.

A limit holds for a key as a whole, whatever proxy or replica its requests come to. So all of them take from the same
token buckets, which live in one small actor. Whoever needs it first starts it, and it ends with them: then the buckets
are full again.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from service.errors import BusyError
from serving.http.settings import Key

NAME, NAMESPACE = "assay-ledger", "assay"
ATTEMPTS = 3
ROUNDING, INSTANT = 1e-9, 1e-6  # of a bucket, in seconds: whoever waits as long as told finds it there, even so


@dataclass(frozen=True)
class Bucket:
    """Holds up to `capacity`, and gains `per_second`."""

    name: str
    capacity: float
    per_second: float

    @classmethod
    def of_requests(cls, key: Key) -> "Bucket":
        return cls(f"requests of {key.name}", key.burst, key.requests_per_second)

    @classmethod
    def of_attacks(cls, key: Key) -> "Bucket":
        """In 10^9 multiplications."""
        return cls(f"attacks of {key.name}", key.attack_gmacs_per_hour, key.attack_gmacs_per_hour / 3600)


class Buckets:
    """Token buckets, full at first. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}  # name -> what was in it, and when

    def take(self, bucket: Bucket, amount: float, more: int = 0) -> tuple[float, float]:
        """What was taken, and the seconds after which there would be enough, should there not be.

        Taken is `amount`, at most what the bucket holds, and as much of `more` as is there, in whole numbers; or
        nothing.
        """
        level = self._level(bucket)
        if (lacking := amount - level) > ROUNDING * bucket.capacity + INSTANT * bucket.per_second:
            return 0.0, lacking / bucket.per_second
        taken = amount + max(0, min(more, math.floor(level - amount)))
        self._set(bucket, level - taken)
        return taken, 0.0

    def give_back(self, bucket: Bucket, amount: float) -> None:
        """What was taken and not needed."""
        self._set(bucket, self._level(bucket) + amount)

    def _level(self, bucket: Bucket) -> float:
        now = self._clock()
        level, since = self._levels.get(bucket.name, (bucket.capacity, now))
        return min(bucket.capacity, level + (now - since) * bucket.per_second)

    def _set(self, bucket: Bucket, level: float) -> None:
        self._levels[bucket.name] = level, self._clock()


class Ledger:
    """The buckets of the whole cluster, from any process of Ray."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def take(self, bucket: Bucket, amount: float, more: int = 0) -> tuple[float, float]:
        """As Buckets.take. BusyError if the buckets cannot be reached: without them nobody is let in."""
        for _ in range(ATTEMPTS):
            try:
                taken, seconds = await self._reached().take.remote(bucket, amount, more)
                return float(taken), float(seconds)
            except RayError:  # whoever started it is gone, and it with them
                self._actor = None
        raise BusyError("what the key has left cannot be looked up now")

    def give_back(self, bucket: Bucket, amount: float) -> None:
        """As Buckets.give_back, some time later."""
        self._reached().give_back.remote(bucket, amount)

    def _reached(self) -> Any:
        if self._actor is None:
            named = {"name": NAME, "namespace": NAMESPACE, "get_if_exists": True}
            self._actor = ray.remote(Buckets).options(num_cpus=0, **named).remote()
        return self._actor
