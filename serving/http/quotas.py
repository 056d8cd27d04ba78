"""The quotas of each key: how many requests, and how much work of attacks, it has left.

A limit holds for a key as a whole, whatever proxy or replica its requests come to. So all of them take from the same
token buckets, which live in one small actor. Whoever needs it first starts it, and it ends with them: then the buckets
are full again.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from service.errors import BusyError, InputError, OverLimitError
from serving.http.settings import Key

NAME, NAMESPACE = "assay-quotas", "assay"
ATTEMPTS = 3
# Tolerances of a bucket's capacity and of its gain, in seconds: a client that waits exactly as long as it was told is
# admitted, in spite of the rounding of floats.
ROUNDING, INSTANT = 1e-9, 1e-6


@dataclass(frozen=True)
class Bucket:
    """Holds up to `capacity`, and gains `per_second`."""

    name: str
    capacity: float
    per_second: float

    @classmethod
    def for_requests(cls, key: Key) -> "Bucket":
        return cls(f"requests of {key.name}", key.burst, key.requests_per_second)

    @classmethod
    def for_inference(cls, key: Key) -> "Bucket":
        """In 10^9 multiplications."""
        return cls(f"inference of {key.name}", key.inference_gmacs_per_hour, key.inference_gmacs_per_hour / 3600)

    @classmethod
    def for_attacks(cls, key: Key) -> "Bucket":
        """In 10^9 multiplications."""
        return cls(f"attacks of {key.name}", key.attack_gmacs_per_hour, key.attack_gmacs_per_hour / 3600)


class Buckets:
    """Token buckets, full at first. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}  # name -> its level, and the time of it

    def take(self, bucket: Bucket, amount: float, more: int = 0) -> tuple[float, float]:
        """How much was taken, and, if nothing, the seconds after which there would be enough.

        Taken is `amount` and as many whole units of `more` as are there; or nothing. amount: at most the capacity.
        """
        level = self._level(bucket)
        if (missing := amount - level) > ROUNDING * bucket.capacity + INSTANT * bucket.per_second:
            return 0.0, missing / bucket.per_second
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


class WorkQuotas:
    """What is left to each key of work of one sort. noun: what it is called, as "attack"."""

    def __init__(self, noun: str, buckets: Mapping[str, Bucket]) -> None:
        self._noun, self._buckets, self._quotas = noun, buckets, Quotas()

    async def reserve(self, key: str | None, gmacs: float) -> None:
        """Take the most that a request may need. OverLimitError if its key has not as much left. None: no keys."""
        if key is None:
            return
        bucket = self._buckets[key]
        if gmacs > bucket.capacity:
            raise InputError(
                f"the {self._noun} must take at most {bucket.capacity:.3g} billion multiplications, those of the key "
                f"in an hour; it takes up to {gmacs:.3g}",
                "send fewer or smaller inputs, or ask for fewer steps",
            )
        taking = asyncio.ensure_future(self._quotas.take(bucket, gmacs))
        try:
            _, seconds = await asyncio.shield(taking)
        except asyncio.CancelledError:  # the client left meanwhile, and the buckets do not know it
            taking.add_done_callback(lambda done: self._return(bucket, done))
            raise
        if seconds:
            raise OverLimitError(
                f"the {self._noun} takes up to {gmacs:.3g} billion multiplications, more than the key has left of its "
                f"{bucket.capacity:.3g} in an hour",
                seconds,
            )

    def give_back(self, key: str | None, gmacs: float) -> None:
        """What was reserved and not needed."""
        if key is not None and gmacs > 0:
            self._quotas.give_back(self._buckets[key], gmacs)

    def _return(self, bucket: Bucket, taking: "asyncio.Future[tuple[float, float]]") -> None:
        """What was taken for nobody."""
        if not taking.cancelled() and taking.exception() is None and (taken := taking.result()[0]):
            self._quotas.give_back(bucket, taken)


class Quotas:
    """The buckets of the whole cluster, from any process of Ray."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def take(self, bucket: Bucket, amount: float, more: int = 0) -> tuple[float, float]:
        """As Buckets.take. BusyError if the buckets cannot be reached: without them no request is admitted."""
        for _ in range(ATTEMPTS):
            try:
                taken, seconds = await self._get_actor().take.remote(bucket, amount, more)
                return float(taken), float(seconds)
            except RayError:  # the process that started the actor has ended, and the actor with it
                self._actor = None
        raise BusyError("the quota of the key cannot be read now")

    def give_back(self, bucket: Bucket, amount: float) -> None:
        """As Buckets.give_back, some time later."""
        self._get_actor().give_back.remote(bucket, amount)

    def _get_actor(self) -> Any:
        if self._actor is None:
            actor = ray.remote(Buckets).options(name=NAME, namespace=NAMESPACE, get_if_exists=True, num_cpus=0)
            self._actor = actor.remote()
        return self._actor
