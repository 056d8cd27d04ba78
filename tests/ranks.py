"""Two processes that train together: the ranks of a group of torch's own, without Ray."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing import start_processes

from tests.ports import free_port

RANKS = 2
# ranks are forked from a process that has loaded what takes long, which starts once for all tests of a process
multiprocessing.set_forkserver_preload(["jobs.common.training.loop", "pytest", "torchvision"])


def answers(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns on each rank."""
    with TemporaryDirectory() as folder:
        start_processes(_on_rank, (free_port(), folder, function, arguments), RANKS, start_method="forkserver")  # type: ignore[no-untyped-call]
        return [torch.load(Path(folder) / str(rank), weights_only=False) for rank in range(RANKS)]


def _on_rank(rank: int, port: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    torch.save(function(*arguments), Path(folder) / str(rank))
    distributed.destroy_process_group()
