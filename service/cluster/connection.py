"""Connect to Ray: an embedded one on this machine, or the cluster that an address names. What its nodes can hold."""

import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.cluster import address as address_of
from service.cluster import embedded, import_path
from service.cluster.node_types import NodeType, known_to_driver
from service.errors import ClusterError, StoreError, first_line
from service.private_folder import private_folder
from service.spec import Resources
from service.store import Folder, open_store

MOST_OF_SOCKET = 24  # characters of a temporary folder: below it Ray makes sockets, whose paths have 107 at most
LOOPBACK = "127.0.0.1"  # where an embedded Ray listens
_HINTS = "ray._private.authentication.authentication_token_setup"
MOST_PRELOADED = 16  # workers of an embedded Ray: it starts one for each core, and with torch each has 300 MB
PORT = re.compile(r"[0-9]{1,5}")
ANSWER_SECONDS = 60.0  # that a node has to look at the store, the start of a worker included

# Said before Ray starts, and inherited by its processes.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "PL_DISABLE_FORK": "1",  # as Tune says to its processes (https://github.com/ray-project/ray/issues/28197)
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a spec mean the same in a trial as on the command line
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "SPT_NOENV": "1",  # agents that set their title keep their environment, by which an embedded Ray's are known
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run's own tables hold the metrics
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the runner saves and stops by itself
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# Of this process, what Tune gives to those of trials, and so to those of their cells (ray.tune.execution.class_cache).
_OF_TRIALS = (
    "PL_DISABLE_FORK",
    "RAY_CHDIR_TO_TRIAL_DIR",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
)


@contextmanager
def connect(
    address: str | None = None,
    cpus: int | None = None,
    insecure: bool = False,
    metrics_port: int | None = None,
    preload: Sequence[str] = (),
) -> Iterator[None]:
    """Ray for the length of a `with` block.

    address: `host:port` of a cluster's GCS or `ray://host:port`; default RAY_ADDRESS; none: an embedded Ray that ends
    with the block. A Ray that this process is connected to already is used and left alone.
    cpus: how many cores the embedded Ray has; default all. insecure: it may also be one that asks for no token.
    metrics_port: at which it tells Prometheus, on the loopback address as all of it; default any that is free.
    preload: modules that its workers import while it starts, where that is not too many of them.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["PYTHONIOENCODING"] = "utf-8"  # of workers, which print into logs, whatever a terminal can show
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        if os.environ.get("RAY_AUTH_MODE") == "disabled" and not insecure:
            raise ClusterError(
                "RAY_AUTH_MODE must not be disabled: every user of this machine could run code in the embedded Ray",
                "unset it, or say --insecure",
            )
        if not insecure:
            logging.getLogger(_HINTS).setLevel(logging.ERROR)  # it would say how to do without the token
        with embedded.started(lambda: _init_local(cpus, metrics_port, preload), ray.shutdown):
            yield
        return
    probe(address)
    try:
        with _start_errors(f"cannot connect to Ray at {address!r}", address_of.about_tokens()):
            ray.init(
                address=address,
                log_to_driver=True,
                logging_level=logging.WARNING,
                runtime_env=import_path.runtime_env(),
            )
        yield
    finally:
        ray.shutdown()


def _init_local(cpus: int | None, metrics_port: int | None, preload: Sequence[str]) -> None:
    import_path.extend()
    runtime_env = import_path.runtime_env()
    if runtime_env or (cpus or os.cpu_count() or 1) > MOST_PRELOADED:
        preload = ()
    with _start_errors("the embedded Ray does not start"), _on_loopback():
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _temp_dir=_session_folder(),
            _metrics_export_port=metrics_port,
            log_to_driver=True,
            logging_level=logging.WARNING,
            runtime_env=runtime_env,
            # beyond one worker for each core it starts only those that get something to do: each costs seconds
            _system_config={"preload_python_modules": list(preload), "enable_worker_prestart": False}
            if preload
            else None,
        )
        _protect_token()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that starts meanwhile listens on the loopback address alone.

    It does so where it takes other machines for impossible, as on macOS. Elsewhere it would take the machine's own
    address, also in place of a loopback address that it is given, and with it listen on all.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _start_errors(what: str, hint: str | None = None) -> Iterator[None]:
    """What goes wrong when Ray starts, as one sentence. It raises errors of all kinds, also plain Exceptions."""
    try:
        yield
    except Exception as error:
        raise ClusterError(f"{what}: {first_line(error)}", hint) from error


def probe(address: str) -> None:
    """Fail within a second if nobody listens: `ray.init` would try for minutes without a word."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not PORT.fullmatch(port):
        raise ClusterError(f"the Ray address {address!r} is not of the form host:port")
    address_of.probe(host.strip("[]"), int(port))


def check_feasible(resources: Resources, nodes: Iterable[NodeType] | None = None) -> None:
    """ClusterError if the cluster could never hold one trial: Ray would wait for ever without a word.

    nodes: those that there are or may become; default: the living ones and those that the autoscaler may add.
    """
    nodes = [*_living(), *known_to_driver()] if nodes is None else list(nodes)
    places = sum(node.count * node.room(amounts(resources)) for node in nodes)
    if places >= resources.workers:
        return
    if resources.workers > 1 and places > 0:
        raise ClusterError(
            f"resources.workers: a trial asks for {resources.workers}; the cluster has room for {places} of that size"
        )
    asked = amounts(resources)
    best = {name: max((node.amount(name) for node in nodes), default=0.0) for name in asked}
    lacking = next((name for name, amount in asked.items() if amount > best[name]), "CPU")
    unit = {"CPU": "cpus", "GPU": "gpus", "memory": "memory_gb"}[lacking]
    scale = 2**30 if lacking == "memory" else 1
    raise ClusterError(
        f"resources.{unit}: a trial asks for {asked[lacking] / scale:g}; the largest node has {best[lacking] / scale:g}"
    )


def no_room(what: str, resources: Resources, seconds: float) -> ClusterError:
    """What to say of something that could not be placed for so long."""
    asked = " and ".join(f"{amount:g} {name}" for name, amount in amounts(resources).items() if name != "memory")
    there = ", ".join(
        f"{sum(node.amount(name) for node in _living()):g} {name}" for name in amounts(resources) if name != "memory"
    )
    workers = f"{resources.workers} workers of " if resources.workers > 1 else ""
    return ClusterError(
        f"limits.max_wait_seconds: {what} waited {seconds:g} s for {workers}{asked} on a node; the cluster has {there}",
        hint="`assay resume` goes on when there is room",
    )


def amounts(resources: Resources) -> dict[str, float]:
    """What one worker of a trial reserves, in Ray's names and units. What it does not need is left out."""
    named = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": (resources.memory_gb or 0) * 2**30}
    return {name: amount for name, amount in named.items() if amount > 0}


def task_options(resources: Resources) -> dict[str, Any]:
    """How a Ray task asks for what one worker of a trial reserves, anywhere in the cluster."""
    needs = amounts(resources)
    return {
        "num_cpus": needs["CPU"],
        "num_gpus": needs.get("GPU", 0),
        "memory": needs.get("memory"),
        "scheduling_strategy": "DEFAULT",  # explicitly: otherwise a task stays within the trial's placement group
    }


def as_a_trial() -> dict[str, Any]:
    """Options of a task whose worker is to compute cells afterwards: Ray keeps those with other variables apart."""
    return {"runtime_env": {"env_vars": {name: os.environ[name] for name in _OF_TRIALS if name in os.environ}}}


def room(resources: Resources) -> int:
    """How many workers of this size the nodes hold now, were they empty. A worker is never split between nodes."""
    return sum(node.room(amounts(resources)) for node in _living())


def check_store(store: Folder) -> None:
    """ClusterError if a node does not see what another writes to the store. Every node is asked, at the same time."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]  # type: ignore[no-untyped-call]
    if not others:
        return
    folder = store / f"check-{uuid.uuid4().hex[:12]}"
    folder.write("question", b"?")
    try:
        asked = {}
        for node in others:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = _answer.options(num_cpus=0, max_retries=0, scheduling_strategy=there, **as_a_trial())
            asked[task.remote(folder.uri, node["NodeID"])] = node
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
        for ref in ready:  # of a node that does not answer in time nothing is known
            node = asked[ref]
            try:
                complaint = ray.get(ref)
                if complaint is None and not folder.exists(node["NodeID"]):
                    complaint = "the driver does not see what that node wrote"
            except RayTaskError as error:
                complaint = f"it cannot run Assay: {str(error).strip().splitlines()[-1]}"
            except RayError:  # the node was lost meanwhile, which is Ray's to handle
                complaint = None
            if complaint:
                raise ClusterError(
                    f"store: {store.uri} is not the same place on node {node['NodeManagerAddress']}: {complaint}",
                    hint="set `store` to a folder that all nodes share (NFS, a mounted volume) or to a URI such as "
                    "s3://bucket/prefix",
                )
    finally:
        folder.delete()


@ray.remote
def _answer(uri: str, name: str) -> str | None:
    """Read what the driver wrote, and write an answer. Runs on the node that is asked."""
    folder = open_store(uri)
    try:
        folder.read("question")
        folder.write(name, b"!")
    except StoreError as error:
        return error.message
    return None


def _living() -> list[NodeType]:
    return [NodeType(1, node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _session_folder() -> str:
    """Where an embedded Ray keeps sockets and logs: a folder that no other user can open, as Ray's own could be."""
    temporary = tempfile.gettempdir()
    if len(temporary) > MOST_OF_SOCKET:
        temporary = "/tmp"
    return str(private_folder("assay-ray", temporary))


def _protect_token() -> None:
    """Ray writes the cluster's secret with the permissions of the umask; only its owner has to read it."""
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)
