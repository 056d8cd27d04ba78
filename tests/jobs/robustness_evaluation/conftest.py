"""What the tests of the evaluation share: one thread, a handle on a folder of its own, and small parameters."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.robustness_evaluation.job import Params
from service.run import Run
from service.store import open_store
from service.validation import validate

HERE = "tests.jobs.robustness_evaluation.subjects"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As trials run: with several threads, tiny networks spend their time waiting for each other's end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """A handle with a model store; the same `name` is the same folder, as for a trial that is started again."""

    def make(name: str = "trial", seed: int = 0) -> Run:
        store = open_store(str(tmp_path / "store"))
        return Run(store / "runs" / name, seed, store=store)

    return make


def tree(**changes: Any) -> dict[str, Any]:
    """Parameters as a spec has them: the linear model on its digits, attacked by PGD."""
    return {
        "model": {"name": f"{HERE}:linear"},
        "data": {"name": f"{HERE}:digits"},
        "epsilons": [0.05],
        "attacks": {"pgd": {"kind": "pgd", "steps": 5}},
        "first": 60,
        "slice": 20,
        "show": 0,
        **changes,
    }


def params(**changes: Any) -> Params:
    return validate(Params, tree(**changes), "params")


def odd(kind: str) -> dict[str, Any]:
    return {"name": f"{HERE}:odd", "options": {"kind": kind}}
