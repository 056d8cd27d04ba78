"""The token of a cluster: offered to Ray in time, and named when a cluster is out of reach."""

import os
import subprocess
import sys

import pytest

from service import address


def test_a_token_that_is_here_is_offered_before_ray_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)
    monkeypatch.setitem(sys.modules, "ray", sys)
    address.offer_token()
    assert "RAY_AUTH_MODE" not in os.environ, "too late: Ray has looked"
    monkeypatch.delitem(sys.modules, "ray")
    address.offer_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    address.offer_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled", "who says so has the last word"


def test_the_command_line_offers_it() -> None:
    code = "import os, sys\nfrom service.cli import main\nmain(['--help'])\nprint(os.environ.get('RAY_AUTH_MODE'))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["RAY_AUTH_TOKEN"] = "a" * 32
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "token", done.stderr


@pytest.mark.parametrize(
    ("mode", "token", "sentence"),
    [
        (None, False, "here is none"),
        (None, True, "RAY_AUTH_MODE=token is not set here"),
        ("token", True, "the one here may be another"),
    ],
)
def test_a_cluster_out_of_reach_may_ask_for_a_token(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, token: bool, sentence: str
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/absent")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32 if token else "")
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert sentence in address.about_tokens() and "ray get-auth-token" in address.about_tokens()
