"""What the tests of all studies share: one thread, and a handle on a folder of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from service.run import Run
from service.store import open_store


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As trials run: with several threads, tiny networks spend their time waiting for each other's end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Any]:
    """A handle with a model store; the same `name` is the same folder, as for a trial that is started again."""

    def make(name: str = "trial", seed: int = 0, kind: type[Run] = Run, **options: Any) -> Any:
        root = open_store(str(tmp_path))
        return kind(root / name, seed, **{"store": root / "store", **options})

    return make
