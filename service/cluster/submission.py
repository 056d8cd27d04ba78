"""Runs on a cluster, through Ray's Jobs API: submit, follow, cancel, list.

The job is `assay run SPEC --id ID`, the same as by hand, started by a launcher. Its submission id is the id of the run,
and what is true of the run is in its store. Ray's table of jobs dies with the head; here it only says what goes on
meanwhile.
"""

import asyncio
import logging
import platform
import re
import shlex
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from service.cluster import address as address_of
from service.cluster import connection, node_types, packaging
from service.cluster.node_types import NodeType
from service.errors import ClusterError, RunLockedError, RunNotFoundError, SpecError, first_line
from service.execution.records import check_id
from service.planning import plan, yaml_text
from service.spec import JobSpec

SAVE_SECONDS = 60.0  # that a cancelled run has to save before Ray kills it; Ray's own default is 3
ANSWER_SECONDS = 5.0  # for one question to the head
ENDS = {
    0: "finished",
    1: "failed",
    2: "failed",
    3: "partial",
    130: "cancelled",
}  # by exit code
for _name in ("dashboard_sdk", "job.sdk"):
    logging.getLogger(f"ray.dashboard.modules.{_name}").setLevel(logging.WARNING)
_STARTS_A_RUN = re.compile(rf"-m service |\bassay |{re.escape(packaging.LAUNCHER)} ")  # by hand as well
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class RemoteRun:
    """A run as Ray's table of jobs has it. status: as of a run, or `pending`; lost: its driver died."""

    id: str
    status: str
    created: float  # seconds since 1970
    seconds: float
    message: str
    exit_code: int | None


class Head:
    """The head node of a cluster, at the address of its dashboard: `http://head:8265`."""

    def __init__(self, address: str, insecure: bool = False) -> None:
        """Connect. ClusterError in a sentence: nobody answers, another version of Ray, no token, or no protection.

        insecure: also if everybody who reaches a public address may run code there.
        """
        place = address_of.parse(address)
        address_of.probe(place.host, place.port)
        self.address = place.url
        self._headers = self._authentication(place.host, insecure)
        try:
            self.client = JobSubmissionClient(self.address, headers=self._headers)
        except AuthenticationError as error:
            raise ClusterError(f"{self.address} does not accept the token that is here") from error
        except (ConnectionError, RuntimeError, requests.RequestException) as error:
            raise ClusterError(f"{self.address} does not take jobs: {first_line(error)}") from error
        self.notes = self._check_versions()

    def _authentication(self, host: str, insecure: bool) -> dict[str, str]:
        """The headers that the cluster wants to see."""
        mode = self._ask("/api/authentication_mode", {}).get("authentication_mode", "disabled")
        if mode == "token":
            if (token := address_of.token()) is None:
                raise ClusterError(
                    f"{self.address} asks for a token, and there is none here",
                    hint="on the head: `ray get-auth-token`; here: RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, or the file "
                    "~/.ray/auth_token",
                )
            return {"Authorization": f"Bearer {token}"}
        if not insecure and not address_of.is_loopback(host):
            raise ClusterError(
                f"{self.address} asks for no token: everybody who reaches it may run code there",
                hint="start the cluster with RAY_AUTH_MODE=token, or say --insecure",
            )
        return {}

    def _check_versions(self) -> list[str]:
        """Refuse another Ray; tell of another Python."""
        metadata = self._ask("/api/v0/cluster_metadata").get("data", {})
        theirs, ours = str(metadata.get("rayVersion", "")), ray.__version__
        if theirs.split(".")[:2] != ours.split(".")[:2]:
            raise ClusterError(f"{self.address} runs Ray {theirs or 'of unknown version'}, here is {ours}")
        python, here = str(metadata.get("pythonVersion", "")), platform.python_version()
        if python.split(".")[:2] != here.split(".")[:2]:
            return [f"the cluster runs Python {python}, the spec was validated with {here}"]
        return []

    def _ask(self, path: str, headers: dict[str, str] | None = None) -> Any:
        headers = self._headers if headers is None else headers
        try:
            answer = requests.get(self.address + path, headers=headers, timeout=ANSWER_SECONDS)
            answer.raise_for_status()
            content = answer.json()
            if not isinstance(content, dict):
                raise ValueError(f"{path} holds {str(content)[:40]!r}")
            return content
        except (requests.RequestException, ValueError) as error:
            raise ClusterError(f"{self.address} does not answer as a Ray dashboard: {error}") from error

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ConnectionError, requests.RequestException) as error:
            raise ClusterError(f"{self.address}: cannot {what}: {first_line(error)}") from error

    # ---- jobs -----------------------------------------------------------------------------------------------------

    def submit(self, job_spec: JobSpec, run_id: str, growth: list[NodeType], driver_cpus: float = 0) -> None:
        """Hand a run to the cluster. Everything that can be refused here is.

        growth: the nodes that the autoscaler may add. driver_cpus: 0, the driver runs on the head node; else on any
        node with so many cores. It never asks for a GPU.
        """
        check_id(run_id)
        address_of.check_absolute(job_spec.store)
        nodes = [*self.nodes(), *growth]
        for resources in {each.spec.resources for each in plan.trials(job_spec)}:
            connection.check_feasible(resources, nodes)
        if (earlier := self._find(run_id)) is not None:
            raise SpecError(
                f"run id {run_id!r} is in use: a job of that name is {earlier.status}",
                hint=f"`assay resume {run_id} --address {self.address} --store {job_spec.store}` goes on with it",
            )
        words = ["run", packaging.SPEC, "--id", run_id]
        self._submit(words, run_id, growth, driver_cpus, yaml_text.dump(job_spec.tree()).encode())

    def resume(self, run_id: str, store: str, growth: list[NodeType], driver_cpus: float = 0) -> None:
        """Go on with a run whose job has ended, under the same id."""
        check_id(run_id)
        address_of.check_absolute(store)
        if (earlier := self._find(run_id)) is not None:
            if earlier.status in ("pending", "running"):
                raise RunLockedError(
                    f"run {run_id} is {earlier.status} on {self.address}", hint="wait for it, or `assay cancel` it"
                )
            with self._said(f"forget the job of run {run_id} that has ended"):
                self.client.delete_job(run_id)
        self._submit(["resume", run_id, "--store", store], run_id, growth, driver_cpus, None)

    def _submit(
        self, words: list[str], run_id: str, growth: list[NodeType], driver_cpus: float, spec: bytes | None
    ) -> None:
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": f"{SAVE_SECONDS:.0f}", "PYTHONUNBUFFERED": "1"}
        if growth:
            variables[node_types.VARIABLE] = node_types.to_json(growth)
        with tempfile.TemporaryDirectory(prefix="assay-") as folder:
            package = Path(folder) / "package.zip"
            packaging.pack(Path.cwd(), package, spec)
            with self._said(f"submit run {run_id}"):
                self.client.submit_job(
                    entrypoint=shlex.join(["python", packaging.LAUNCHER, *words]),
                    submission_id=run_id,
                    runtime_env={"working_dir": str(package), "env_vars": variables},
                    entrypoint_num_cpus=driver_cpus or None,
                )

    def nodes(self) -> list[NodeType]:
        """The nodes that are alive."""
        nodes = self._ask("/api/v0/nodes?detail=1&limit=10000")["data"]["result"]["result"]
        return [NodeType(1, node["resources_total"]) for node in nodes if node["state"] == "ALIVE"]

    def runs(self) -> list[RemoteRun]:
        """The runs in Ray's table, oldest first."""
        with self._said("list jobs"):
            jobs = self.client.list_jobs()
        runs = [_run_of(job) for job in jobs if job.submission_id and _STARTS_A_RUN.search(job.entrypoint)]
        return sorted(runs, key=lambda each: each.created)

    def run(self, name: str) -> RemoteRun:
        """A run by its id, or an unambiguous beginning or end of it, or `last`. RunNotFoundError."""
        known = self.runs()
        matching = [each for each in known if each.id == name]
        matching = matching or [each for each in known if each.id.startswith(name) or each.id.endswith(name)]
        matching = known[-1:] if name == "last" else matching
        if len(matching) != 1:
            ids = ", ".join(each.id for each in matching or known) or "none"
            raise RunNotFoundError(f"{self.address}: {len(matching)} runs are named {name!r}", hint=f"known: {ids}")
        return matching[0]

    def _find(self, run_id: str) -> RemoteRun | None:
        return next((each for each in self.runs() if each.id == run_id), None)

    def cancel(self, run_id: str) -> RemoteRun:
        """Ask a run to save and stop, and wait until it has."""
        with self._said(f"stop run {run_id}"):
            self.client.stop_job(run_id)
        end = time.monotonic() + SAVE_SECONDS + 2 * ANSWER_SECONDS
        while (state := self.run(run_id)).status in ("pending", "running") and time.monotonic() < end:
            time.sleep(0.5)
        return state

    def logs(self, run_id: str, follow: bool) -> Iterator[str]:
        """What the driver said, in pieces; with `follow` until it has ended. Goes on after the head was away."""
        if not follow:
            with self._said(f"read the log of run {run_id}"):
                yield _ANSI.sub("", self.client.get_job_logs(run_id))
            return
        shown = 0
        while True:
            length = 0
            for text in self._tail(run_id):
                new = text[max(0, shown - length) :]  # the beginning has been shown before the head went away
                length += len(text)
                if new:
                    shown = length
                    yield _ANSI.sub("", new)
            if self.run(run_id).status not in ("pending", "running"):
                return
            time.sleep(1)

    def _tail(self, run_id: str) -> Iterator[str]:
        pieces = self.client.tail_job_logs(run_id)
        with asyncio.Runner() as runner:
            try:
                while (text := runner.run(_next(pieces))) is not None:
                    yield text
            except (RuntimeError, OSError):
                return  # the connection is lost: whoever called looks whether the job goes on


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


def _run_of(job: JobDetails) -> RemoteRun:
    match job.status:
        case JobStatus.PENDING:
            status = "pending"
        case JobStatus.RUNNING:
            status = "running"
        case JobStatus.SUCCEEDED:
            status = "finished"
        case JobStatus.STOPPED:
            status = "cancelled"
        case _:
            status = ENDS.get(job.driver_exit_code if job.driver_exit_code is not None else -1, "lost")
    begun = (job.start_time or 0) / 1000
    ended = job.end_time / 1000 if job.end_time else time.time()
    message = (job.message or "").partition(", last available logs")[0].strip()
    return RemoteRun(str(job.submission_id), status, begun, max(ended - begun, 0), message, job.driver_exit_code)
