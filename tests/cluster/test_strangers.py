"""What a cluster that was started as the documentation says leaves open to strangers: nothing."""

import re
import socket
from pathlib import Path

import pytest
import requests

from tests.cluster.nodes import LocalCluster

ROOT = Path(__file__).parents[2]


def test_the_dashboard_is_not_reached_from_another_address(head: LocalCluster) -> None:
    socket.create_connection(("127.0.0.1", head.dashboard_port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", head.dashboard_port), timeout=5)


def test_the_job_api_asks_for_the_token(head: LocalCluster) -> None:
    url = f"{head.dashboard}/api/jobs/"
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.post(url, json={"entrypoint": "id"}, timeout=10).status_code == 401
    headers = {"Authorization": f"Bearer {head.token[::-1]}"}
    assert requests.get(url, headers=headers, timeout=10).status_code == 403
    headers = {"Authorization": f"Bearer {head.token}"}
    assert requests.get(url, headers=headers, timeout=10).status_code == 200


@pytest.mark.parametrize("name", ["cluster.yaml", "SECURITY.md", "README.md", "docs/cluster.md"])
def test_documented_commands_ask_for_a_token_and_open_no_dashboard(name: str) -> None:
    text = (ROOT / name).read_text()
    commands = list(re.finditer(r"^.*\bray start .*$", text, re.M))
    assert commands
    for found in commands:
        command = found.group()
        exported = "export RAY_AUTH_MODE=token" in text[: found.start()]
        assert "--dashboard-host" not in command, command
        assert exported or "RAY_AUTH_MODE=token" in command or "`" in command, command
