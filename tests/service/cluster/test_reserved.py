"""What a job that fans out computes besides its cells: reserved, resumed in each phase, and equal to a serial run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service import spec
from service.execution import layout, runner
from service.execution.history import trials
from service.execution.runner import Execution
from service.store import Folder, open_store

JOB = "tests.service.phases"


def walked(store: Path, serial: bool = False, **params: Any) -> tuple[Any, Folder]:
    """The run's record, and the folder of its only trial."""
    params = {"folder": str(store), **params}
    store.mkdir(exist_ok=True)
    job_spec = spec.build({"job": JOB, "store": str(store), "params": params})
    state = runner.start(job_spec, Execution(serial))
    return state, layout.trial(layout.run(open_store(str(store)), state.id), "000")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    state, folder = walked(tmp_path_factory.mktemp("undisturbed"), serial=True)
    assert state.status == "finished", state.failure
    return folder


def assert_same(folder: Folder, expected: Folder) -> None:
    for name in (layout.METRICS, layout.TABLE.format("ends")):
        assert folder.read_table(name).equals(expected.read_table(name))


# in the second phase the checkpoint of the first is there as well
@pytest.mark.parametrize("phase", [pytest.param("first", marks=pytest.mark.slow), "second"])
def test_a_worker_that_dies_in_a_phase_goes_on_from_its_checkpoint(
    tmp_path: Path, ray_session: None, undisturbed: Folder, phase: str
) -> None:
    state, folder = walked(tmp_path / "store", die_in=phase)
    assert state.status == "finished", state.failure
    assert (tmp_path / "store" / "died").exists()
    assert_same(folder, undisturbed)
    (ended,) = trials(layout.run(open_store(str(tmp_path / "store")), state.id))
    assert ended.warnings == ("the second walk has ended",)
    assert not folder.exists(layout.CHECKPOINTS), "nothing will go on from it"


@pytest.mark.parametrize("phase", [pytest.param("first", marks=pytest.mark.slow), "second"])
def test_a_driver_that_dies_in_a_phase_goes_on_from_its_checkpoint(
    tmp_path: Path, undisturbed: Folder, phase: str
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    fields = [f"store={store}", f"params.die_in={phase}", f"params.folder={store}"]
    path = tmp_path / "spec.yaml"
    path.write_text(f"job: {JOB}\n")
    command = [sys.executable, "-m", "service", "run", str(path), *fields, "--serial", "--id", "killed"]
    assert subprocess.run(command, capture_output=True).returncode == -9
    state = runner.resume(open_store(str(store)), "killed", Execution(serial=True))
    assert state.status == "finished", state.failure
    assert_same(layout.trial(layout.run(open_store(str(store)), "killed"), "000"), undisturbed)


@pytest.mark.parametrize("serial", [True, False])
def test_an_error_of_what_is_reserved_is_that_of_the_trial(tmp_path: Path, ray_session: None, serial: bool) -> None:
    state, _ = walked(tmp_path / "store", serial, fail_in="second")
    assert state.status == "failed" and state.failure is not None
    assert (state.failure.cause, state.failure.message) == ("user_error", "the second walk fails")
    assert "in walk" in state.failure.traceback


ON_ONE_GPU = """
import functools, os, sys
import ray
from service import spec
from service.cluster.connection import connect
from service.execution import runner
from service.execution.runner import Execution

os.environ["PRETENDED_GPU"] = "1"  # also in the workers
ray.init = functools.partial(ray.init, num_gpus=1)
with connect("local", cpus=3, preload=["tests.service.gpus"]):  # workers that are there serve all three runs
    for job, gpus, seeds, seconds, cells in (
        ("tests.service.gpus", 0.5, [0, 1, 2], 0.3, 4),
        ("tests.service.gpus", 0, [0], 0.01, 1),
        ("tests.service.plain_gpus", 0, [0], 0.01, 1),
    ):
        folder = f"{sys.argv[1]}/{job}-{gpus}"
        os.mkdir(folder)
        params = {"folder": folder, "seconds": seconds, "cells": cells}
        tree = {"job": job, "store": folder + "/store", "params": params}
        tree |= {"resources": {"gpus": gpus}, "sweep": {"grid": {"seed": seeds}}}
        state = runner.start(spec.build(tree), Execution())
        assert state.status == "finished", state.failure
"""


def test_a_gpu_is_used_when_it_was_reserved_and_only_then(tmp_path: Path) -> None:
    """On a cluster with one GPU, that is pretended. Three trials train and map in reservations of half of it."""
    done = subprocess.run([sys.executable, "-c", ON_ONE_GPU, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

    def entries(name: str) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((tmp_path / name).glob("*.json"))]

    halves = entries("tests.service.gpus-0.5")
    assert [each["what"] for each in halves].count("training") == 3
    assert {each["device"] for each in halves} == {"cuda:0"} and all(each["gpus"] == [0] for each in halves)
    at_once = [sum(one["began"] <= each["began"] < one["ended"] for one in halves) for each in halves]
    assert max(at_once) == 2, "two at a time, and not three"
    for name in ("tests.service.gpus-0", "tests.service.plain_gpus-0"):
        assert {each["device"] for each in entries(name)} == {"cpu"}, "what was not reserved is not used"


def test_a_reservation_without_a_usable_gpu_is_one_sentence(tmp_path: Path) -> None:
    job_spec = spec.build({"job": JOB, "store": str(tmp_path), "resources": {"gpus": 1}})
    state = runner.start(job_spec, Execution(serial=True))
    assert state.status == "failed" and state.failure is not None
    assert "resources.gpus: 1 is reserved, but torch" in state.failure.message
