"""What the service costs around a training loop: handle, log, checkpoints and Ray Tune, against the bare loop.

The same loop runs bare in this process, then as a serial trial, then as a trial under Ray Tune, three times in turn;
the ratio of the medians is printed. What a trial costs once, whatever its length, is printed as seconds.
"""

import tempfile
import time
from statistics import median

from service import spec
from service.cluster.connection import connect
from service.execution import history, runner
from service.execution.runner import Execution
from service.store import open_store
from tests.benchmarks import _loop

UPDATES = 400
ROUNDS = 3


def through_the_service(store: str, serial: bool) -> tuple[float, float]:
    """Seconds of the loop inside the trial, and of the whole run around it."""
    job_spec = spec.build({"job": "tests.benchmarks._loop", "params": {"updates": UPDATES}, "store": store})
    began = time.perf_counter()
    state = runner.start(job_spec, Execution(serial=serial))
    whole = time.perf_counter() - began
    assert state.status == "finished", state.failure
    (trial,) = history.trials(open_store(store) / "runs" / state.id)
    return trial.metrics["loop_seconds"], whole


def main() -> None:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as store, connect("local", cpus=1):
        print(f"starting an embedded Ray: {time.perf_counter() - began:.1f} s")
        bare, serial, tuned, around = [], [], [], []
        for _ in range(ROUNDS):
            bare.append(_loop.train(UPDATES, lambda step, loss, state: None))
            serial.append(through_the_service(store, serial=True)[0])
            loop, whole = through_the_service(store, serial=False)
            tuned.append(loop)
            around.append(whole - loop)
    print(f"bare loop: {median(bare):.2f} s for {UPDATES} updates, reported and saved every {_loop.REPORT_EVERY}")
    print(f"as a serial trial: {median(serial) / median(bare):.3f} of the bare loop")
    print(f"as a trial under Tune: {median(tuned) / median(bare):.3f} of the bare loop (goal: below 1.05)")
    print(f"once per run under Tune, whatever its length: {median(around):.1f} s")


if __name__ == "__main__":
    main()
