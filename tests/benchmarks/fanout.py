"""What `run.map` costs around a cell, against the bare loop and against one Ray task for each cell.

Cells of 1, 10 and 100 ms of one core, in turn: the bare loop in this process, `run.map` in this process, `run.map` on
two workers, and plain Ray tasks on two workers. Rates of rows measured in turn; ratios hold on a loaded machine. Then
ten thousand cells that do nothing: the service's own time for each.
"""

import tempfile
import time
from collections.abc import Callable
from statistics import median

import ray

from service.cluster.connection import connect
from service.cluster.tasks import RayTasks
from service.execution.fan_out.mapping import Executor, InProcess
from service.run import Run
from service.spec import Resources
from service.store import open_store
from tests.benchmarks._cells import busy

WORKERS = 2
ROUNDS = 3
TRIVIAL = 10_000
CELLS = {0.001: 4000, 0.01: 600, 0.1: 60}


def mapped(executor: Executor, cells: list[list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert Run(open_store(folder), 0, executor=executor).map(busy, cells) == [cell[0] for cell in cells]


def one_task_each(cells: list[list[float]]) -> None:
    task = ray.remote(busy)
    assert ray.get([task.remote(cell, None) for cell in cells]) == [cell[0] for cell in cells]


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def main() -> None:
    with connect("local", cpus=WORKERS):
        on_ray = RayTasks(Resources(), 0, lambda progress: None)
        warm = [[float(index), 0.05] for index in range(20)]
        mapped(on_ray, warm)  # the workers have started, and have imported what they need
        one_task_each(warm)
        for length, count in CELLS.items():
            cells = [[float(index), length] for index in range(count)]
            ways: dict[str, Callable[[], object]] = {
                "the bare loop": lambda cells=cells: [busy(cell, None) for cell in cells],
                "run.map in this process": lambda cells=cells: mapped(InProcess(), cells),
                f"run.map on {WORKERS} workers": lambda cells=cells: mapped(on_ray, cells),
                f"a Ray task each on {WORKERS} workers": lambda cells=cells: one_task_each(cells),
            }
            took: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, act in ways.items():
                    took[name].append(seconds(act))
            bare = median(took["the bare loop"])
            for name, times in took.items():
                rate, ratio = count / median(times), bare / median(times)
                print(f"cells of {1000 * length:3.0f} ms, {name}: {rate:,.1f} cells/s, {ratio:.3f} of the bare loop")
        cells = [[float(index), 0.0] for index in range(TRIVIAL)]
        for name, act in {
            "run.map in this process": lambda: mapped(InProcess(), cells),
            f"run.map on {WORKERS} workers": lambda: mapped(on_ray, cells),
            f"a Ray task each on {WORKERS} workers": lambda: one_task_each(cells),
        }.items():
            each = median(seconds(act) for _ in range(ROUNDS)) / TRIVIAL
            print(f"{TRIVIAL:,} cells that do nothing, {name}: {1000 * each:.3f} ms each")


if __name__ == "__main__":
    main()
