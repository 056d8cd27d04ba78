"""What the driver records of trials that do not do it themselves."""

import threading
from types import SimpleNamespace
from typing import Any

from service import spec
from service.cluster.sweep import _Watch
from service.execution import history
from service.execution.progress import Silent
from service.execution.trials.schedule import Schedule
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
