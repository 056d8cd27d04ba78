"""Token buckets: what is admitted, and how long the rest has to wait."""

import asyncio
import random
from typing import Any

import pytest

from serving.http.keys import new_key
from serving.http.quotas import Bucket, Buckets, WorkQuotas
from tests.serving import virtual_time


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate_and_the_wait_is_exact() -> None:
    clock = Clock()
    buckets, bucket = Buckets(clock), Bucket("b", capacity=3, per_second=0.5)
    assert [buckets.take(bucket, 1) for _ in range(4)] == [(1, 0), (1, 0), (1, 0), (0, 2)]
    clock.now += 1.5
    assert buckets.take(bucket, 1) == (0, 0.5)
    clock.now += 0.5
    assert buckets.take(bucket, 1) == (1, 0)
    clock.now += 1000
    assert buckets.take(bucket, 3) == (3, 0), "it never holds more than its capacity"
    assert buckets.take(bucket, 1) == (0, 2)


def test_more_is_taken_as_far_as_it_is_there() -> None:
    clock = Clock()
    buckets, bucket = Buckets(clock), Bucket("b", capacity=10, per_second=1)
    assert buckets.take(bucket, 1, more=5) == (6, 0)
    assert buckets.take(bucket, 1, more=5) == (4, 0)
    clock.now += 1.75
    assert buckets.take(bucket, 1, more=5) == (1, 0)
    assert buckets.take(bucket, 1, more=5) == (0, 0.25)


def test_what_was_not_needed_comes_back() -> None:
    clock = Clock()
    buckets, bucket = Buckets(clock), Bucket("b", capacity=100, per_second=1)
    assert buckets.take(bucket, 90) == (90, 0)
    assert buckets.take(bucket, 30) == (0, 20)
    buckets.give_back(bucket, 85)
    assert buckets.take(bucket, 95) == (95, 0)
    buckets.give_back(bucket, 1000)
    assert buckets.take(bucket, 100) == (100, 0) and buckets.take(bucket, 1) == (0, 1)


def test_buckets_of_keys_are_apart() -> None:
    clock = Clock()
    buckets, keys = Buckets(clock), [new_key(name)[1] for name in ("alice", "bob")]
    for key in keys:
        assert buckets.take(Bucket.for_requests(key), key.burst) == (key.burst, 0)
        assert buckets.take(Bucket.for_attacks(key), key.attack_gmacs_per_hour) == (key.attack_gmacs_per_hour, 0)
    _, seconds = buckets.take(Bucket.for_attacks(keys[0]), keys[0].attack_gmacs_per_hour / 2)
    assert seconds == pytest.approx(1800)


def test_a_wait_as_long_as_announced_is_enough() -> None:
    """In spite of the rounding of floats."""
    draw, clock = random.Random(0), Clock()
    for index in range(300):
        bucket = Bucket(str(index), capacity=10 ** draw.uniform(0, 6), per_second=10 ** draw.uniform(-4, 5))
        buckets = Buckets(clock)
        buckets.take(bucket, bucket.capacity)
        for _ in range(5):
            amount = draw.uniform(0, 1) * bucket.capacity
            taken, seconds = buckets.take(bucket, amount)
            if not taken:
                clock.now += seconds
                assert buckets.take(bucket, amount)[0] == amount


def test_what_was_taken_for_a_client_that_left_meanwhile_comes_back() -> None:
    async def run() -> None:
        buckets, bucket, answered = Buckets(), Bucket("b", capacity=100, per_second=1e-9), asyncio.Event()

        class Slow:
            async def take(self, bucket: Bucket, amount: float) -> tuple[float, float]:
                taken = buckets.take(bucket, amount)
                await answered.wait()
                return taken

            give_back = staticmethod(buckets.give_back)

        quotas: Any = WorkQuotas("attack", {"alice": bucket})
        quotas._quotas = Slow()
        reserving = asyncio.ensure_future(quotas.reserve("alice", 90))
        await asyncio.sleep(0)
        reserving.cancel()
        await asyncio.wait([reserving])
        assert reserving.cancelled()
        answered.set()
        await asyncio.sleep(0.01)
        assert buckets.take(bucket, 99)[0] == 99

    virtual_time.run(run())
