"""Networks that a spec refers to: of the store, of other packages, by import path."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.common.models.reference import ModelReference
from service import models
from service.errors import InputError, ModelError, StoreError
from service.run import Run
from service.store import Folder, open_store
from tests.jobs.shared import draft

HERE = "tests.jobs.common.models.test_reference"


def line(size: int) -> nn.Module:
    return nn.Linear(size, 1)


def broken(size: int) -> nn.Module:
    raise TypeError(f"no size {size}")


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def run(store: Folder) -> Run:
    return Run(store / "runs" / "one", seed=3, store=store)


def publish(store: Folder, bias: float) -> None:
    card = draft(f"{HERE}:line", {"size": 2}, task="lining")
    models.publish(store, "line", {"weight": torch.ones(1, 2), "bias": torch.tensor([bias])}, card)


def test_the_newest_version_or_the_one_that_is_named(store: Folder, run: Run) -> None:
    publish(store, 1.0)
    publish(store, 2.0)
    for reference, name, bias in (("line", "line/2", 2.0), ("line/1", "line/1", 1.0)):
        model = ModelReference(name=reference, trusted=("tests",)).load(run)
        assert model.name == name and model.card is not None and f"{model.card.name}/{model.card.version}" == name
        assert isinstance(model.network, nn.Linear) and model.network.bias.item() == bias
        assert not model.network.training
    model.check_task("lining")
    with pytest.raises(InputError, match="the task of model 'line/1' must be classification; it is lining"):
        model.check_task("classification")
    with pytest.raises(ModelError, match=f"{HERE}:line' is outside Assay.*say that you trust the package 'tests'"):
        ModelReference(name="line").load(run)
    with pytest.raises(StoreError, match="model 'line': this handle knows no model store"):
        ModelReference(name="line").load(Run(store, seed=3))


def test_an_import_path_gives_the_same_network_for_a_seed(store: Folder, run: Run) -> None:
    reference = ModelReference(name=f"{HERE}:line", options={"size": 4})
    before = torch.random.get_rng_state()
    first, again, other = (reference.load(each).network for each in (run, run, Run(store, seed=4)))
    assert torch.equal(torch.random.get_rng_state(), before), "the global stream goes on as if nothing had been drawn"
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    assert not first.training and reference.load(run).card is None
    reference.load(run).check_task("classification")  # nobody knows better


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (f"{HERE}:line", {}, "refuses its options {}: .*missing.*'size'"),
        (f"{HERE}:broken", {"size": 1}, "refuses its options {'size': 1}: no size 1"),
        (f"{HERE}:Path", {}, "is a PosixPath, not a torch module"),
        (f"{HERE}:lines", {}, "has no 'lines'"),
        (f"{HERE}:HERE", {}, "cannot be called"),
    ],
)
def test_import_paths_that_lead_nowhere(name: str, options: dict[str, object], sentence: str, run: Run) -> None:
    with pytest.raises(InputError, match=f"model '{re.escape(name)}'.*{sentence}"):
        ModelReference(name=name, options=options).load(run)


@pytest.mark.parametrize("text", ["line/", "line/0", "line/newest", "line/1/2", "line/-1", "../secret"])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match="is not a version"):
        ModelReference(name=text)
