"""The token of a cluster: named when a cluster is out of reach."""

import pytest

from service.cluster import address


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
