"""A tiny study that trains in seconds, and a handle on a folder of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from jobs.common.training import OptimizerParams
from jobs.deep_thinking.data import FreshBatches
from jobs.deep_thinking.training import TrainingParams
from service.run import Run
from service.store import open_store


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As trials run: with several threads, tiny networks spend their time waiting for each other's end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """A handle; the same `name` is the same folder, as for a trial that is started again."""

    def make(name: str = "trial", seed: int = 0, kind: type[Run] = Run) -> Run:
        return kind(open_store(str(tmp_path)) / name, seed)

    return make


@pytest.fixture
def tiny() -> TrainingParams:
    return TrainingParams(
        size=6,
        iterations=4,
        batch=8,
        alpha=0.5,
        data=FreshBatches(steps=12, validation=20),
        optimizer=OptimizerParams(clip=1.0),
        throttle=True,
        report_every=4,
        keep="best",
    )
