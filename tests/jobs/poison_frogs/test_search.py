"""The search as cells: what is crafted, how often, and what a kill leaves."""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import torch

from jobs.poison_frogs import illustrations
from jobs.poison_frogs.job import Params, run
from jobs.poison_frogs.poisons import crafting
from jobs.poison_frogs.poisons.search import Crafts, batches
from service import spec
from service.execution import runner
from service.execution.fan_out import mapping
from service.execution.fan_out.mapping import CellProgress
from service.execution.runner import Execution
from service.planning.plan import trials
from service.planning.validation import validate
from service.store import Folder, open_store
from tests.processes import started, wait_for

CHEAP = {
    "data": {"name": "digits", "train_limit": 200, "test_limit": 150},
    "network": {
        "kind": "train",
        "classifier": {"name": "digits_16_net", "options": {"side": 8, "size": 32}},
        "training": {
            "epochs": 4,
            "batch": 20,
            "optimizer": {"kind": "adam", "learning_rate": 3e-3, "weight_decay": 0.0},
            "augmentation": {"padding": 0, "flip": False},
        },
    },
    "task": ["3", "8"],
    "pairs": [{"target": "3", "base": "8"}, {"target": "8", "base": "3"}],
    "targets": {"count": 4, "only_correct": False},
    "attack": {"kind": "feature_collision", "profile": "paper", "iterations": 30, "step": 0.01},
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
    monkeypatch.setattr(illustrations, "draw", lambda *_: None)


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
    for targets, size in ((1, 64), (2, 6), (5, 64), (40, 64)):
        everything = list(batches(targets, 50, size))
        for most in range(1, 50):
            some = list(batches(targets, most, size))
            assert some == everything[: len(some)] and max(map(len, some)) <= size
            ranks = {rank for batch in some for _, _, rank in batch}
            assert set(range(most)) <= ranks and len(ranks) <= 1.25 * most
            assert sum(map(len, some)) == targets * len(ranks), "each once"
    assert [len(batch) for batch in batches(2, 16, 64)] == [2] * 8 + [4, 4, 6, 6], "few targets share a batch"


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


def crafts_kept(run: Folder) -> dict[str, list[list[int]]]:
    """Of each batch of crafts that a run has written: its pairs of target and base, and that it is there once."""
    found: dict[str, list[list[int]]] = {}
    for file in run.files():
        if "/crafts/" in file and file.endswith(".parquet"):
            for row in run.read_table(file).to_pylist():
                assert row["key"] not in found, "a batch was computed twice"
                found[row["key"]] = [pair[:2] for pair in json.loads(row["cell"])]
    return found


# trials at the same time, in threads, are in tests/service/execution/fan_out/test_mapping.py; on Ray they are slow
@pytest.mark.parametrize("at_once", [0, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2))])
def test_a_sweep_over_the_number_of_poisons_crafts_each_once(at_once, store_uri, request):
    """at_once: trials on Ray at the same time; 0: in this process."""
    if at_once:
        request.getfixturevalue("ray_session")
    counts = [[2], [5]]
    tree = {**CHEAP, "bases": {"rule": "random"}, "show": 0, "targets": {"count": 2, "only_correct": False}}
    sweep = {"grid": {"params.poisons": counts}}
    resources = {"cpus": 4 / max(1, at_once)}  # of the 4 of the session's Ray
    fields = {"params": tree, "sweep": sweep, "resources": resources, "store": store_uri}
    swept = spec.build({"job": "poison_frogs", **fields})
    state = runner.start(swept, Execution(serial=not at_once), run_id="swept")
    assert state.status == "finished", state.failure
    folder = open_store(store_uri) / "runs"
    pairs = [tuple(pair) for batch in crafts_kept(folder / "swept").values() for pair in batch]
    assert len(pairs) == len(set(pairs)) == 4 * 5, "as many as the largest number needs"

    single = {**tree, "poisons": [2, 5]}
    state = runner.start(
        spec.build({"job": "poison_frogs", "params": single, "store": store_uri}), Execution(serial=True), "single"
    )
    assert state.status == "finished", state.failure
    whole = verdicts(folder / "single/trials/000")
    for plan in trials(swept):
        (count,) = plan.spec.params.poisons
        mine = {key: row for key, row in whole.items() if key[1] == count}
        assert mine and mine.items() <= verdicts(folder / "swept/trials" / plan.id).items()


def verdicts(trial: Folder) -> dict[tuple[int, int], list[Any]]:
    """What became of each target that was poisoned, by target and number of poisons."""
    told = ("verdict", "confidence", "fitted", "rotation", "collision")
    rows = [row for row in table(trial, "targets") if row["control"] == "poison"]
    return {(row["target"], row["poisons"]): [row[name] for name in told] for row in rows}


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
        patch.setattr(mapping, "FLUSH_SECONDS", 0.0)  # what is done is written before anything more begins
        run(params(poisons=[1, 2]), make_run("killed", executor=mapping.InProcess(die)))
    assert 0 < len(crafted) < crafts
    resumed = make_run("killed")
    run(params(poisons=[1, 2]), resumed)
    assert sorted(crafted) == everything, "together both crafted what one run crafts"
    assert repr(table(resumed.folder, "targets")) == repr(table(whole.folder, "targets"))  # repr: NaN is NaN there
    assert resumed.metrics == whole.metrics


# `python -m service`, in which a batch takes its time and is written before the next begins
SLOWLY = """
import runpy, time
from jobs.poison_frogs.poisons import crafting
from service.execution.fan_out import mapping
plain, mapping.FLUSH_SECONDS = crafting.craft, 0.0
crafting.craft = lambda *given: time.sleep(0.3) or plain(*given)
runpy.run_module("service", run_name="__main__")
"""


def test_a_search_whose_driver_is_killed_goes_on_and_crafts_nothing_twice(tmp_path, crafted):
    store = open_store(str(tmp_path / "store"))
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"job": "poison_frogs", "params": {**CHEAP, "poisons": [1, 6]}, "store": store.uri}))
    command = [sys.executable, "-c", SLOWLY, "run", str(path), "--id", "killed", "--serial"]
    folder = store / "runs/killed"
    with started(command, stdout=subprocess.DEVNULL) as driver:
        wait_for(lambda: crafts_kept(folder), driver)
        driver.kill()
    before = crafts_kept(folder)
    kept = sum(map(len, before.values()))
    assert 0 < kept < 8 * 6, "it is killed in the middle"

    state = runner.resume(store, "killed", Execution(serial=True))
    assert state.status == "finished", state.failure
    assert len(crafted) == 8 * 6 - kept, "what was kept is not crafted again"
    after = crafts_kept(folder)
    assert before.items() <= after.items() and sum(map(len, after.values())) == 8 * 6
    state = runner.start(spec.load(str(path)), Execution(serial=True), "calm")
    assert state.status == "finished", state.failure
    disturbed, calm = (table(store / "runs" / name / "trials/000", "targets") for name in ("killed", "calm"))
    assert repr(disturbed) == repr(calm)  # repr: NaN is NaN there


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
    warning = next(iter(handle.written.warnings))
    assert "4 targets lack poisons" in warning
