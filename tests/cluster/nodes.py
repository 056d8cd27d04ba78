"""A cluster of several nodes on this machine, started as a user would start it: one `ray start` a node."""

import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import requests

from service.cluster.submission import Head
from tests.ports import free_port, listens
from tests.processes import kill_tree, started, titles, wait_for
from tests.service.pace import HURRY

BIN = Path(sys.executable).parent
HEAD_MEMORY = 64 << 20  # less than a trial that hands out cells asks for, so that none of them is on the head


class LocalCluster:
    """A head without cores, protected by a token, and nodes that come and go."""

    def __init__(self, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))  # short: Ray's sockets are below it
        self.port, self.dashboard_port, self.client_port = free_port(), free_port(), free_port()
        self.token = secrets.token_hex(16)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.getcwd(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_health_check_initial_delay_ms": "1000",  # a node that is gone is noticed soon
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "4000",
            "RAY_health_check_failure_threshold": "3",
            "RAY_prestart_worker_first_driver": "0",  # processes that mostly nothing comes of, on few cores
            "RAY_enable_worker_prestart": "0",
            "TUNE_MAX_PENDING_TRIALS_PG": "16",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            HURRY: str(self.folder / "hurry"),
            **environment,
        }
        self._numbers = itertools.count()
        self._machines, self._drivers = ExitStack(), ExitStack()
        self.nodes: list[subprocess.Popen[str]] = []
        try:
            self.head = self.start_head()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def start_head(self, *options: str) -> "subprocess.Popen[str]":
        words = ["--head", "--port", str(self.port), "--dashboard-port", str(self.dashboard_port)]
        words += ["--num-cpus", "0", "--memory", str(HEAD_MEMORY)]
        words += ["--node-ip-address", "127.0.0.1", "--ray-client-server-port", str(self.client_port)]
        self.head = self._start(f"h{next(self._numbers)}", *words, *options)  # as on another machine
        self.wait(lambda: listens(self.dashboard_port) and self._answers(), self.head)
        return self.head

    def add(self, *options: str, cpus: int = 1, wait: bool = True) -> "subprocess.Popen[str]":
        """One more node, with a folder of its own: on one host two nodes would else tidy up each other's files."""
        before = len(self.alive())
        words = ["--address", self.address, "--num-cpus", str(cpus)]
        node = self._start(f"n{next(self._numbers)}", *words, *options)
        self.nodes.append(node)
        if wait:
            self.wait(lambda: len(self.alive()) > before, node)
        return node

    def _start(self, name: str, *options: str) -> "subprocess.Popen[str]":
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--temp-dir", str(folder)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--object-store-memory", str(100 << 20)]
        command += ["--dashboard-agent-listen-port", str(free_port()), *options]
        with open(self.folder / f"{name}.log", "ab") as log:
            options = {"env": self.environment, "stdout": log, "stderr": log, "cwd": self.folder}
            return self._machines.enter_context(started(command, **options))

    def kill(self, node: "subprocess.Popen[str]") -> None:
        """All processes of a node at once, as when the machine goes."""
        kill_tree(node)
        if node in self.nodes:
            self.nodes.remove(node)

    def remove(self, node: "subprocess.Popen[str]") -> None:
        """Take a node away, and wait until the cluster knows."""
        before = len(self.alive())
        self.kill(node)
        wait_for(lambda: len(self.alive()) < before)

    def ensure(self, count: int, cpus: int = 1) -> None:
        """So many nodes of so many cores besides the head."""
        missing = [self.add(cpus=cpus, wait=False) for _ in range(count - len(self.nodes))]
        self.wait(lambda: len(self.alive()) == count + 1, *missing, *self.nodes)

    def workers(self, node: "subprocess.Popen[str]", name: str = "") -> list[psutil.Process]:
        """Ray's worker processes of a node that run something whose name contains `name`."""
        return [
            process
            for process, title in titles(node.pid).items()
            if title.startswith("ray::") and "Agent" not in title and name in title
        ]

    def take_time(self) -> None:
        """From now on jobs pause where they are told to."""
        (self.folder / "hurry").unlink(missing_ok=True)

    def hurry(self) -> None:
        """Nobody looks any more: they pause nowhere."""
        (self.folder / "hurry").touch()

    def jobs(self) -> Head:
        """The head as `assay submit` sees it."""
        before = os.environ.get("RAY_AUTH_TOKEN")
        os.environ["RAY_AUTH_TOKEN"] = self.token
        try:
            return Head(self.dashboard)
        finally:
            os.environ.pop("RAY_AUTH_TOKEN")
            if before is not None:
                os.environ["RAY_AUTH_TOKEN"] = before

    def ask(self, path: str) -> Any:
        """What the dashboard says of something."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.get(self.dashboard + path, headers=headers, timeout=10).json()

    def demand(self, *names: str) -> int:
        """Tasks and actors that wait for room, as the autoscaler sees them: those that ask for just these resources."""
        report = self.ask("/api/cluster_status")["data"]["clusterStatus"]["loadMetricsReport"]
        return sum(count for shape, count in report["resourceDemand"] if {n for n in shape if shape[n]} == {*names})

    def demanded_groups(self, name: str) -> int:
        """Placement groups that wait for a resource, as the autoscaler sees them."""
        report = self.ask("/api/cluster_status")["data"]["clusterStatus"]["loadMetricsReport"]
        return sum(count for group, count in report["pgDemand"] if name in json.dumps(group))

    def alive(self) -> list[Any]:
        """The nodes that the head takes for alive."""
        nodes = self.ask("/api/v0/nodes?limit=100")["data"]["result"]["result"]
        return [node for node in nodes if node["state"] == "ALIVE"]

    def _answers(self) -> bool:
        try:
            return len(self.alive()) >= 1
        except Exception:  # whatever it is that a head says while it starts
            return False

    def wait(self, condition: Callable[[], bool], *processes: "subprocess.Popen[str]") -> None:
        def met() -> bool:
            ended = [process for process in processes if process.poll() is not None]
            assert not ended, "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
            return condition()

        wait_for(met)

    def run(self, *words: str) -> "subprocess.Popen[str]":
        """`assay WORDS…` in this environment, at the latest until `end_drivers`."""
        command = [sys.executable, "-m", "service", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return self._drivers.enter_context(started(command, env=self.environment, **pipes))

    def drive(self, *words: str) -> "subprocess.Popen[str]":
        """`assay WORDS…` with its driver in a process here, outside of the nodes."""
        return self.run(*words, "--address", self.address)

    def end_drivers(self) -> None:
        """Kill those of `run` and `drive` that still run."""
        self._drivers.close()

    def close(self) -> None:
        self.end_drivers()
        self._machines.close()
        shutil.rmtree(self.folder, ignore_errors=True)
