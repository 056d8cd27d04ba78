"""How long a user waits for the first result: from the command to the first cell, against bare scripts.

A cell makes a network and computes its loss. The same is computed by a trial of one process, by Python alone, by a task
of a Ray that a script starts for itself, and by a task of a script that `ray job submit` hands to a cluster of one core
on this machine. The scripts load torch wherever they compute, as jobs do.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median

import yaml

from tests.benchmarks import _first_cell
from tests.cluster.nodes import BIN, LocalCluster
from tests.processes import started

ROUNDS = 3

JOB = """
from pydantic import BaseModel

from study.first_cell import loss

PLACEMENT = {placement!r}


class Params(BaseModel):
    mark: str


def run(params, run):
    {compute}
    run.log(step=1, done=1.0)
"""
PLAIN = """
import sys

from study.first_cell import loss

loss(0, sys.argv[1])
"""
ON_RAY = """
import sys

import ray

from study.first_cell import loss

ray.init({options})
ray.get(ray.remote(loss).remote(0, sys.argv[1]))
"""


class Folder:
    """A user's folder: a study of his own by import path, and scripts that compute the same without Assay."""

    def __init__(self, place: str) -> None:
        self.place, self.mark = Path(place), Path(place, "mark")
        files = {
            "study/first_cell.py": Path(_first_cell.__file__).read_text(),
            "study/cells.py": JOB.format(placement="fan_out", compute="run.map(loss, list(range(8)), params.mark)"),
            "study/training.py": JOB.format(placement="one_process", compute="loss(0, params.mark)"),
            "plain.py": PLAIN,
            "own_ray.py": ON_RAY.format(options='address="local", include_dashboard=False'),
            "on_cluster.py": ON_RAY.format(options=""),
        }
        for name, text in files.items():
            (self.place / name).parent.mkdir(exist_ok=True)
            (self.place / name).write_text(text)
        for job in ("cells", "training"):
            spec = {"job": f"study.{job}", "store": str(self.place / "store"), "params": {"mark": str(self.mark)}}
            (self.place / f"{job}.yaml").write_text(yaml.safe_dump(spec))
        (self.place / ".rayignore").write_text("store*\nmark*\n")  # also the log, which grows while it is packed

    def seconds(self, *command: str | Path, env: Mapping[str, str]) -> float:
        """From the start of a command until the first cell is computed. Returns when the command has ended."""
        self.mark.unlink(missing_ok=True)
        began = time.time()
        with (
            open(self.place / "store.log", "wb") as log,
            started(command, env=env, cwd=self.place, stdout=log, stderr=log) as process,
        ):
            process.wait()
        return float(self.mark.read_text()) - began


def here(folder: Folder) -> dict[str, Callable[[], float]]:
    """Ways to the first cell on this machine, by name."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["PYTHONPATH"] = os.getcwd()

    def run(*words: str | Path) -> Callable[[], float]:
        return lambda: folder.seconds(sys.executable, *words, env=env)

    return {
        "a script of torch alone": run("plain.py", folder.mark),
        "a script with a Ray of its own": run("own_ray.py", folder.mark),
        "assay run, a cell": run("-m", "service", "run", "cells.yaml"),
        "assay run, a trial of one process": run("-m", "service", "run", "training.yaml"),
    }


def on_cluster(folder: Folder, cluster: LocalCluster) -> dict[str, Callable[[], float]]:
    """Ways to the first cell on a cluster that is up, by name."""
    env = cluster.environment

    def submit(spec: str) -> Callable[[], float]:
        words = ["-m", "service", "submit", spec, "--address", cluster.dashboard]
        return lambda: folder.seconds(sys.executable, *words, env=env)

    words = ["job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--", "python", "on_cluster.py"]
    return {
        "ray job submit of a script": lambda: folder.seconds(BIN / "ray", *words, str(folder.mark), env=env),
        "assay submit, a cell": submit("cells.yaml"),
        "assay submit, a trial of one process": submit("training.yaml"),
    }


def measure(ways: dict[str, Callable[[], float]], baseline: str) -> None:
    """Each way in turn, and the ratio of the medians."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            took[name].append(way())
    for name, seconds in took.items():
        ratio = median(seconds) / median(took[baseline])
        print(f"{name}: {median(seconds):.1f} s, {ratio:.2f} of {baseline}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="first", dir="/tmp") as place:
        folder = Folder(place)
        measure(here(folder), "a script with a Ray of its own")
        with closing(LocalCluster()) as cluster:
            cluster.ensure(1)
            measure(on_cluster(folder, cluster), "ray job submit of a script")


if __name__ == "__main__":
    main()
