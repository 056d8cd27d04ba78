"""Passes over a set, on the CPU and on a GPU that is made up, whose memory may run out."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from jobs.common import passes as passes_module
from jobs.common.passes import Batches, outputs, passes
from service.run import remarks


class Room:
    """A network's pass that takes so many rows at most, as on a GPU that others share."""

    def __init__(self, rows: int) -> None:
        self.rows, self.sizes = rows, list[int]()

    def __call__(self, rows: slice) -> list[int]:
        self.sizes.append(rows.stop - rows.start)
        if self.sizes[-1] > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(rows.start, rows.stop))


@pytest.fixture
def heard() -> Iterator[remarks.Remarks]:
    listener = remarks.Remarks()
    with remarks.heard_by(listener):
        yield listener


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU with room for 8 rows at once. Returns the counts for which a batch was looked for."""
    counts: list[int] = []

    def largest(attempt, count, device):
        counts.append(count)
        attempt(1)
        return min(8, 1 << (count - 1).bit_length())

    monkeypatch.setattr(passes_module, "largest_batch", largest)
    monkeypatch.setattr(passes_module, "device_of", lambda network: torch.device("cuda"))
    return counts


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_on_a_cpu_a_batch_is_what_the_caller_says(count: int, sizes: list[int], heard: remarks.Remarks) -> None:
    room = Room(100)
    parts = list(passes(room, count, nn.Linear(1, 1), (1,), purpose="numbers", on_cpu=4))
    assert room.sizes == sizes and sum(parts, []) == list(range(count))
    assert not heard.notes and not heard.warnings


def test_outputs_are_those_of_all_inputs_at_once() -> None:
    network, inputs = nn.Linear(3, 2), torch.rand(10, 3)

    def classes(logits: Tensor) -> Tensor:
        return logits.argmax(1)

    assert torch.equal(outputs(network, inputs, classes, on_cpu=4), classes(network(inputs)))
    assert outputs(network, inputs[:0], on_cpu=4).shape == (0, 2)


def test_on_a_gpu_the_largest_batch_is_found_once_and_noted(gpu: list[int], heard: remarks.Remarks) -> None:
    """Again only where more rows may fit than there were, or a row takes other memory."""
    network, room = nn.Linear(1, 1), Room(8)

    def over(count: int, like: tuple[int, ...] = (1,)) -> list[int]:
        room.sizes.clear()
        assert sum(passes(room, count, network, like, purpose="numbers", on_cpu=4), []) == list(range(count))
        return room.sizes

    assert over(3) == [1, 3] and over(4) == [4] and gpu == [3]
    assert over(20) == [1, 8, 8, 4] and over(20) == [8, 8, 4] and over(2) == [2] and gpu == [3, 20]
    assert over(20, (2,)) == [1, 8, 8, 4] and gpu == [3, 20, 20]
    assert heard.notes == tuple(f"numbers in batches of {size}, found to fit the GPU" for size in (4, 8))


def test_where_others_took_memory_batches_are_halved_once_with_a_warning(
    gpu: list[int], heard: remarks.Remarks
) -> None:
    network, room = nn.Linear(1, 1), Room(8)

    def over(count: int) -> list[int]:
        room.sizes.clear()
        assert sum(passes(room, count, network, (1,), purpose="numbers", on_cpu=4), []) == list(range(count))
        return room.sizes

    assert over(20) == [1, 8, 8, 4]
    room.rows = 5
    assert over(20) == [8, 4, 4, 4, 4, 4] and over(9) == [4, 4, 1] and gpu == [20]
    (warning,) = heard.warnings
    assert "ran out at 8 at once" in warning and "batches of 4" in warning
    room.rows = 3
    with pytest.raises(torch.OutOfMemoryError):
        over(20)


@pytest.mark.parametrize(("batches", "count"), [(Batches(8, "numbers", may_shrink=False), 8), (Batches(8, "one"), 1)])
def test_what_depends_on_the_batch_or_is_one_row_is_not_halved(batches: Batches, count: int) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        list(batches.over(Room(0), count))


def test_fewer_than_a_batch_are_halved_by_their_own_number(heard: remarks.Remarks) -> None:
    room = Room(4)
    assert sum(Batches(64, "numbers").over(room, 6), []) == list(range(6)) and room.sizes == [6, 4, 2]
