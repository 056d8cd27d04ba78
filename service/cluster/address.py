"""Where a cluster is: addresses, whether anybody answers there, and the token that it may ask for.

Imports neither Ray nor torch: a dead address is noticed at once.
"""

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from service.errors import ClusterError, SpecError

PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Dashboard:
    """The address of a head's dashboard, where jobs are submitted."""

    url: str
    host: str
    port: int


def is_dashboard(address: str | None) -> bool:
    """Whether an address is that of a dashboard, not of Ray itself."""
    return address is not None and address.startswith(("http://", "https://"))


def parse(address: str) -> Dashboard:
    """`http://head:8265` in parts. ClusterError if it is not of that form."""
    try:
        parts = urlsplit(address.rstrip("/"))
        if is_dashboard(address) and parts.hostname and not parts.path and not parts.username:
            return Dashboard(parts.geturl(), parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError:
        pass
    raise ClusterError(f"{address!r} is not the address of a Ray dashboard", hint="for example http://head:8265")


def probe(host: str, port: int) -> None:
    """ClusterError within a second if nobody listens: Ray itself would try for minutes without a word."""
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"nobody answers at the Ray address '{host}:{port}': {error.strerror or error}",
            hint="is the cluster up? without RAY_ADDRESS and --address an embedded Ray is used",
        ) from error


def is_loopback(host: str) -> bool:
    """Whether all addresses of a host are on this machine."""
    try:
        return all(ipaddress.ip_address(answer[4][0]).is_loopback for answer in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def token() -> str | None:
    """The token for clusters that ask for one, from where Ray itself looks; None if there is none."""
    if shown := os.environ.get("RAY_AUTH_TOKEN"):
        return shown.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return text if re.fullmatch(r"[\x21-\x7e]+", text) else None


def about_tokens() -> str:
    """What may be wrong with the token when a cluster cannot be reached: Ray does not say that this is why."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        mine = "here is none" if token() is None else "RAY_AUTH_MODE=token is not set here"
    else:
        mine = "the one here may be another"
    return f"if it asks for a token, {mine}: `ray get-auth-token` on its head tells its own, for RAY_AUTH_TOKEN"


def check_absolute(store: str) -> None:
    """SpecError if the store is a folder relative to where a driver happens to run: no other node would find it."""
    if "://" not in store and not Path(store).expanduser().is_absolute():
        raise SpecError(
            f"store: {store!r} is a folder of this machine, and the run is for a cluster",
            hint="give a folder that all nodes share, by its full path, or a URI such as s3://bucket/prefix",
        )


def is_job() -> bool:
    """Whether this process is the driver of a job that was submitted to a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
