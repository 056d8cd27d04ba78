"""What the driver records of trials that do not do it themselves."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.runtime_env import RuntimeEnv
from ray.tune.execution import class_cache
from ray.tune.utils.util import flatten_dict

from service import spec
from service.cluster import connection, embedded, sweep
from service.cluster.schedulers import TuneScheduler
from service.cluster.sweep import _Watch
from service.execution import history
from service.execution.fan_out.mapping import InProcess
from service.execution.progress import Silent
from service.execution.trials.early_stopping import early_stopping
from service.execution.trials.schedule import Schedule
from service.execution.trials.trial import execute
from service.handle.rows import nowhere
from service.planning import plan
from service.store import open_store


def test_a_trial_that_ends_without_a_record_has_failed_unless_the_scheduler_stopped_it(store_uri: str) -> None:
    """As when its worker wrote somewhere else."""
    grid = {"grid": {"seed": [0, 1]}}
    job_spec = spec.build({"job": "tests.service.walk", "store": store_uri, "sweep": grid})
    plans = plan.trials(job_spec)
    folder = open_store(store_uri) / "runs" / "one"
    schedule = Schedule(job_spec, plans, plans, folder, Silent(), threading.Event())
    watch = _Watch(schedule, stopped={plans[1].id})
    for number in range(2):
        trial: Any = SimpleNamespace(config={"plan": number})
        watch.on_trial_start(0, [trial], trial)
        watch.on_trial_complete(0, [trial], trial)
    failed, stopped = history.trials(folder)
    assert (failed.status, stopped.status) == ("failed", "stopped")
    assert failed.failure and failed.failure.message.startswith("it ended without a record: its worker sees another")


def test_a_trial_that_has_ended_before_its_worker_died_has_ended(store_uri: str) -> None:
    job_spec = spec.build({"job": "tests.service.walk", "store": store_uri})
    plans = plan.trials(job_spec)
    folder = open_store(store_uri) / "runs" / "one"
    ended = execute(plans[0], folder, nowhere, InProcess())
    watch = _Watch(Schedule(job_spec, plans, plans, folder, Silent(), threading.Event()), stopped=set())
    trial: Any = SimpleNamespace(config={"plan": 0}, get_error=lambda: None)
    watch.on_trial_start(0, [trial], trial)
    watch.on_trial_error(0, [trial], trial)
    assert ended.status == "finished" and history.trials(folder) == [ended]
    assert execute(plans[0], folder, lambda *row: pytest.fail("it is run again"), InProcess()) == ended


def test_a_metric_may_have_the_name_of_what_tune_is_told() -> None:
    rule = {"kind": "threshold", "metric": "index", "at_step": 1, "at_least": 2.0}
    sweep = {"grid": {"seed": [0, 1]}, "scheduler": rule}
    job_spec = spec.build({"job": "tests.service.walk", "sweep": sweep})
    plans = plan.trials(job_spec)
    scheduler = TuneScheduler(early_stopping(job_spec, plans), plans)
    for number, (value, verdict) in enumerate([(50.0, "CONTINUE"), (1.0, "STOP")]):
        trial: Any = SimpleNamespace(config={"plan": number})
        result = flatten_dict({"row": {"step": 1, "index": value}, "index": 0, "total_steps": None})
        assert scheduler.on_trial_result(None, trial, result) == verdict


def test_workers_that_are_there_serve_trials_and_their_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps workers of other runtime environments apart. Of an embedded Ray all have that of this process."""
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
    monkeypatch.setenv("PL_DISABLE_FORK", "1")

    def of_a_trial() -> RuntimeEnv:
        actor: Any = class_cache._ActorClassCache().get(type("Trial", (), {}))
        return RuntimeEnv(**actor._default_options["runtime_env"])

    assert RuntimeEnv(**connection.as_a_trial()["runtime_env"]).serialize() == of_a_trial().serialize()
    monkeypatch.setattr(embedded, "_is_up", True)
    with sweep._workers_in_advance():
        assert of_a_trial().serialize() == "{}"
    monkeypatch.undo()
    assert "PL_DISABLE_FORK" in of_a_trial()["env_vars"]
