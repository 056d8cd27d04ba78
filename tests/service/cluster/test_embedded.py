"""An embedded Ray one of whose processes is killed in the middle of a sweep."""

import subprocess
import sys
from pathlib import Path

import pytest
import ray

from service.cluster import connection
from service.errors import ClusterError
from service.execution import history, runner
from service.execution.runner import Execution
from service.store import open_store
from tests.processes import running, started, titles, wait_for
from tests.service.pace import HURRY

SPEC = """
job: tests.service.walk
store: {store}
params: {{pace: {{seconds_per_step: 1.0}}}}
sweep: {{grid: {{params.pace.steps: [1, 100]}}, metric: height}}
"""
END_SECONDS = 40.0  # below the minute after which Ray gives up, also where all cores are taken


@pytest.mark.parametrize(
    "victims",
    [
        ("raylet",),
        pytest.param(("gcs_server",), marks=pytest.mark.slow),
        pytest.param(("RuntimeEnvAgent",), marks=pytest.mark.slow),
        pytest.param(("gcs_server", "raylet"), marks=pytest.mark.slow),
        pytest.param(("driver",), marks=pytest.mark.slow),
        pytest.param(("raylet", "driver"), marks=pytest.mark.slow),
        pytest.param(("driver", "gcs_server"), marks=pytest.mark.slow),
    ],
    ids="-then-".join,
)
def test_a_killed_process_ends_the_run_in_a_sentence(tmp_path: Path, victims: tuple[str, ...]) -> None:
    path, store = tmp_path / "spec.yaml", open_store(str(tmp_path / "store"))
    path.write_text(SPEC.format(store=store.path))
    folder = store / "runs" / "hurt"
    words = [sys.executable, "-m", "service", "run", str(path), "--id", "hurt", "--cpus", "1"]
    with started(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_for(lambda: len(history.trials(folder)) >= 1, driver)
        processes = titles(driver.pid)
        for victim in victims:
            if victim == "driver":
                driver.kill()
                continue
            (process,) = (each for each, title in processes.items() if victim in title.split()[0])
            process.kill()
        printed, _ = driver.communicate(timeout=END_SECONDS)
    wait_for(lambda: not running(processes), seconds=END_SECONDS)

    state = history.load(folder)
    assert (state.trials_done, state.trials) == (1, 2)
    if "driver" in victims:
        assert state.status == "lost"
    else:
        assert driver.returncode == 1 and "Traceback" not in printed
        assert "RAY_AUTH_MODE" not in printed, "Ray's hint how to do without the token"
        assert "failed: 1 of 2 trials" in printed and "assay: the embedded Ray has lost its " in printed, printed
        assert state.failure and state.failure.message.startswith("the embedded Ray has lost its "), state.failure

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HURRY, str(tmp_path))
        assert runner.resume(store, "hurt", Execution(serial=True)).status == "finished"


@pytest.mark.parametrize(
    "error", [Exception("timed out\nsee the logs"), RuntimeError("timed out"), OSError("timed out")]
)
def test_a_ray_that_does_not_start_is_one_sentence(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**how: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError) as raised, connection.connect("local"):
        pass
    assert raised.value.message == "the embedded Ray does not start: timed out"
