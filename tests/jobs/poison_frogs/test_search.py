"""The search as cells: what is crafted, how often, and what a kill leaves."""

from collections import Counter
from typing import Any

import pytest
import torch

from jobs.poison_frogs import crafting, figures
from jobs.poison_frogs.job import Params, run
from jobs.poison_frogs.search import Crafts, batches
from service import fanout
from service.fanout import CellProgress
from service.store import Folder
from service.validation import validate

CHEAP = {
    "data": {"name": "digits", "train_limit": 200, "test_limit": 150},
    "network": {
        "kind": "train",
        "classifier": {"name": "jobs.poison_frogs.features:small", "options": {"side": 8, "size": 32}},
        "training": {
            "epochs": 4,
            "batch": 20,
            "optimizer": {"kind": "adam", "learning_rate": 3e-3, "weight_decay": 0.0},
        },
    },
    "task": ["3", "8"],
    "pairs": [{"target": "3", "base": "8"}, {"target": "8", "base": "3"}],
    "targets": {"count": 4, "only_correct": False},
    "attack": {"kind": "paper", "iterations": 30, "step": 0.01},
    "batch": 4,
    "show": 2,
}


def params(**changes: Any) -> Params:
    return validate(Params, {**CHEAP, **changes}, "params")


def table(folder: Folder, name: str) -> list[dict[str, Any]]:
    return folder.read_table(f"tables/{name}.parquet").to_pylist()


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the search."""
    monkeypatch.setattr(figures, "draw", lambda *_: None)


@pytest.fixture
def crafted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Each pair whose crafting began, by sums of pixels of its base and its target."""
    pairs: list[tuple[float, float]] = []
    plain = crafting.craft

    def counted(extract: Any, bases: torch.Tensor, targets: torch.Tensor, *others: Any) -> Any:
        pairs.extend(zip(bases.flatten(1).sum(1).tolist(), targets.flatten(1).sum(1).tolist(), strict=True))
        return plain(extract, bases, targets, *others)

    monkeypatch.setattr(crafting, "craft", counted)
    return pairs


def test_batches_of_few_poisons_begin_those_of_many():
    few, many = list(batches(6, 3, 4)), list(batches(6, 10, 4))
    assert many[: len(few)] == few
    assert [key for batch in many for key in batch][:7] == [*((at, 0, 0) for at in range(6)), (0, 0, 1)]
    assert sum(map(len, many)) == 60 and max(map(len, many)) == 4
    assert [len(batch) for batch in batches(2, 5, 6)] == [6, 4], "few targets share a batch"


def test_a_search_over_the_number_of_poisons_crafts_each_once(make_run, crafted):
    handle = make_run()
    run(params(poisons=[1, 2, 5], bases={"rule": "random"}), handle)
    assert len(crafted) == len(set(crafted)) == 8 * 5
    rows = [row for row in table(handle.folder, "targets") if row["control"] == "poison"]
    assert Counter(row["poisons"] for row in rows) == {1: 8, 2: 8, 5: 8}
    first = {(row["target"], row["poisons"]): row["collision"] for row in rows}
    assert all(first[target, 5] <= first[target, 2] <= first[target, 1] for target, _ in first), "sets are nested"
    crafted.clear()
    run(params(poisons=[1, 2, 5, 4], bases={"rule": "random"}), make_run())
    assert not crafted, "another number of what is there already costs no craft"


class Killed(BaseException):
    """What no job and no cell survives."""


def test_a_killed_search_goes_on_and_crafts_nothing_twice(make_run, crafted, monkeypatch):
    whole = make_run("whole")
    run(params(poisons=[1, 2]), whole)
    everything, crafts = sorted(crafted), len(crafted)
    crafted.clear()

    def die(progress: CellProgress) -> None:
        if progress.name == "crafts" and progress.done >= 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fanout, "FLUSH_SECONDS", 0.0)  # what is done is written before anything more begins
        run(params(poisons=[1, 2]), make_run("killed", executor=fanout.InProcess(die)))
    assert 0 < len(crafted) < crafts
    resumed = make_run("killed")
    run(params(poisons=[1, 2]), resumed)
    assert sorted(crafted) == everything, "together both crafted what one run crafts"
    assert repr(table(resumed.folder, "targets")) == repr(table(whole.folder, "targets"))  # repr: NaN is NaN there
    assert resumed.metrics == whole.metrics


def test_a_poison_that_is_too_far_is_made_of_the_next_base(make_run, crafted):
    handle = make_run()
    near = {row["target"]: row for row in rows_of(handle, params())}
    limit = sorted(row["collision"] for row in near.values())[3]
    crafted.clear()
    again = make_run("again")
    tried = {row["target"]: row for row in rows_of(again, params(retry={"above": limit, "tries": 3}))}
    assert 8 < len(crafted) <= 8 + 2 * 4, "four are within the limit"
    for target, row in tried.items():
        assert row["collision"] <= near[target]["collision"]
        if near[target]["collision"] <= limit:
            assert row["base"] == near[target]["base"]


def rows_of(handle: Any, asked: Params) -> list[dict[str, Any]]:
    run(asked, handle)
    return table(handle.folder, "poisons")


def test_a_target_that_lacks_a_poison_is_left_out_of_what_needs_it(make_run, monkeypatch):
    assert Crafts({(0, 0, 0): None}).keys(0, 2) is None  # type: ignore[dict-item]
    plain, met = crafting.craft, []

    def failing(extract: Any, bases: torch.Tensor, *others: Any) -> Any:
        met.append(bases)
        if len(met) >= 3 and torch.equal(bases, met[2]):  # the third batch, also when it is tried again
            raise ArithmeticError("it does not converge")
        return plain(extract, bases, *others)

    monkeypatch.setattr(crafting, "craft", failing)
    handle = make_run()
    run(params(poisons=[1, 2]), handle)
    assert handle.failed_cells[0].count == 1
    rows = {row["poisons"]: row["n"] for row in table(handle.folder, "success") if row["control"] == "poison"}
    assert rows == {1: 8, 2: 4}
    (warning,) = table(handle.folder, "warnings")[:1]
    assert "4 targets lack poisons" in warning["warning"]
