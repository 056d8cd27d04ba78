"""The cache of instances: found again, never stale, never trusted when damaged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.deep_thinking.problems import cache, problem
from jobs.deep_thinking.problems.mazes import Mazes


class Counting(Mazes):
    """Mazes that count how often they are made."""

    made = 0

    def sample(self, size: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        Counting.made += 1
        return super().sample(size, count, seed)


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(Counting, "made", 0)


def test_made_once_and_found_again(tmp_path: Path) -> None:
    first = cache.cached_sample(Counting(), 9, 5, 1, tmp_path)
    again = cache.cached_sample(Counting(), 9, 5, 1, tmp_path)
    assert Counting.made == 1
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    for size, count, seed, scale in ((11, 5, 1, 2), (9, 6, 1, 2), (9, 5, 2, 2), (9, 5, 1, 1)):
        cache.cached_sample(Counting(scale=scale), size, count, seed, tmp_path)  # type: ignore[arg-type]
    assert Counting.made == 5, "every argument and option counts"
    assert len(list(tmp_path.iterdir())) == 5, "nothing is left aside"


class Listed(Counting):
    """With an option that is too long to be written out."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = values


def test_options_count_to_the_last_number(tmp_path: Path) -> None:
    values = np.arange(5000.0)
    cache.cached_sample(Listed(values), 9, 5, 1, tmp_path)
    cache.cached_sample(Listed(values.copy()), 9, 5, 1, tmp_path)
    assert Counting.made == 1
    values[2500] = -1
    cache.cached_sample(Listed(values), 9, 5, 1, tmp_path)
    assert Counting.made == 2


def test_options_that_cannot_be_told_apart_are_not_cached(tmp_path: Path) -> None:
    class Closed(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.rule = lambda: 1

    for _ in range(2):
        cache.cached_sample(Closed(), 9, 5, 1, tmp_path)
    assert Counting.made == 2 and not list(tmp_path.iterdir())


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    first = cache.cached_sample(Counting(), 9, 5, 1, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole[:40], b"x" * len(whole), whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        again = cache.cached_sample(Counting(), 9, 5, 1, tmp_path)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert Counting.made == 6
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    assert len(cache.cached_sample(Counting(), 9, 5, 1, tmp_path / "absent")[0]) == 5


def test_what_is_made_fast_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH_SECONDS", 60.0)
    cache.cached_sample(problem("prefix_sums"), 16, 5, 1, tmp_path)
    assert not list(tmp_path.iterdir())
