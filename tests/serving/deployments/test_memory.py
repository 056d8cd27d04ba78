"""What requests hold is counted, bounded for all and for each key, and given back."""

import pytest

from service.errors import BusyError, TooLargeError
from serving.deployments.memory import Holding, Memory

MB = 2**20


def test_a_key_gets_half_and_all_keys_together_the_whole() -> None:
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


def test_what_never_has_room_is_too_large() -> None:
    holding = Holding(Memory(100), "a")
    with pytest.raises(
        TooLargeError, match="at most 50 MiB of memory, half of queue.memory_mb; this one would hold 51"
    ):
        holding.resize(51 * MB)
    holding.resize(50 * MB)
