"""The largest batch, with a memory that is made up."""

from collections.abc import Callable

import pytest
import torch

from jobs.common.batch_size import largest_within

WEIGHTS, EACH = 1000, 10  # bytes of the network, and of a sample


class Memory:
    """So many bytes in all; what does not fit raises as CUDA does."""

    def __init__(self, total: int) -> None:
        self.total, self.tried, self.taken = total, [], 0

    def attempt(self, size: int) -> None:
        self.tried.append(size)
        self.taken = WEIGHTS + EACH * size
        if self.taken > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def peak(self, act: Callable[[], object]) -> int:
        act()
        return self.taken


@pytest.mark.parametrize(
    ("total", "limit", "most", "batch"),
    [
        (10_000, 10_000, 100_000, 512),  # 1,000 + 10 * 512 fits, twice as many do not
        (10_000, 4_000, 100_000, 256),  # a share of the memory
        (10**9, 10**9, 100, 128),  # the first that holds all there are
        (10**9, 10**9, 64, 64),
        (500, 500, 100, 1),  # not even one: it is tried where it is needed, and says so there
    ],
)
def test_it_is_the_largest_power_of_two_that_fits(total: int, limit: int, most: int, batch: int) -> None:
    memory = Memory(total)
    assert largest_within(memory.attempt, most, limit, memory.peak) == batch
    assert memory.tried == [2**power for power in range(len(memory.tried))], "from small to large, each once"


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(size: int) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        largest_within(broken, 8, 100, Memory(100).peak)
