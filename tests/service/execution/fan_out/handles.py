"""What the tests of the fan-out share: a handle for a folder, and what equal results are."""

from pathlib import Path
from typing import Any

import torch

from service.execution.fan_out.mapping import CellProgress, Executor
from service.run import Run
from service.store import open_store


def nowhere(progress: CellProgress) -> None:
    pass


def handle(folder: Path, executor: Executor | None = None) -> Run:
    return Run(open_store(str(folder)), seed=7, executor=executor)


def identical(one: Any, other: Any) -> bool:
    """Equal bit for bit, types too."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other
