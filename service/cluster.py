"""Connect to Ray: an embedded one on this machine, or the cluster that an address names."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from service.errors import ClusterError
from service.spec import Resources

PROBE_SECONDS = 1.0

# Said before Ray starts, and inherited by its processes.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a spec mean the same in a trial as on the command line
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run's own tables hold the metrics
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the runner saves and stops by itself
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def connect(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray for the length of a `with` block.

    address: `host:port` of a cluster's GCS or `ray://host:port`; default RAY_ADDRESS; none: an embedded Ray that ends
    with the block. A Ray that this process is connected to already is used and left alone.
    cpus: how many cores the embedded Ray has; default all.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            _import_path_for_workers()
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=True,
                logging_level=logging.WARNING,
            )
            _protect_token()
        else:
            probe(address)
            ray.init(address=address, log_to_driver=True, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"cannot connect to Ray at {address!r}: {_first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def probe(address: str) -> None:
    """Fail within a second if nobody listens: `ray.init` would try for minutes without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise ClusterError(f"the Ray address {address!r} is not of the form host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"nobody answers at the Ray address {address!r}: {error.strerror or error}",
            hint="is the cluster up? without RAY_ADDRESS and --address an embedded Ray is used",
        ) from error


def check_feasible(resources: Resources) -> None:
    """ClusterError if the cluster could never hold one trial: Ray would wait for ever without a word."""
    asked = amounts(resources)
    nodes = _nodes()
    best = {name: max((node.get(name, 0) for node in nodes), default=0) for name in asked}
    found = room(resources)
    if found >= resources.workers:
        return
    if resources.workers > 1 and found > 0:
        raise ClusterError(
            f"resources.workers: a trial asks for {resources.workers}; the cluster has room for {found} of that size"
        )
    lacking = next((name for name, amount in asked.items() if amount > best[name]), "CPU")
    unit = {"CPU": "cpus", "GPU": "gpus", "memory": "memory_gb"}[lacking]
    scale = 2**30 if lacking == "memory" else 1
    raise ClusterError(
        f"resources.{unit}: a trial asks for {asked[lacking] / scale:g}; the largest node has {best[lacking] / scale:g}"
    )


def amounts(resources: Resources) -> dict[str, float]:
    """What one worker of a trial reserves, in Ray's names and units. What it does not need is left out."""
    named = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": (resources.memory_gb or 0) * 2**30}
    return {name: amount for name, amount in named.items() if amount > 0}


def room(resources: Resources) -> int:
    """How many workers of this size the nodes hold now, were they empty. A worker is never split between nodes."""
    asked = amounts(resources)
    return sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in asked.items()) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    """The resources of every node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _import_path_for_workers() -> None:
    """Workers of the embedded Ray import from where the command was given, as the driver does."""
    paths = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _protect_token() -> None:
    """Ray writes the cluster's secret with the permissions of the umask; only its owner has to read it."""
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
