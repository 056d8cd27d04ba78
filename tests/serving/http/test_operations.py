"""Which request is which operation."""

import pytest

from service.errors import MethodNotAllowedError
from serving.http.errors import error_headers
from serving.http.operations import OPERATIONS, NoSuchPathError, Router


def find(method: str, path: str) -> tuple[str, dict[str, str]]:
    operation, parts = Router().find({"type": "http", "method": method, "path": path, "headers": []})
    return operation.handler, dict(parts)


def test_every_operation_is_reached_by_each_of_its_paths() -> None:
    for operation in OPERATIONS:
        for path in operation.paths:
            handler, parts = find(operation.method, path.format(name="m", version="3"))
            assert handler == operation.handler
            assert parts == {part: value for part, value in (("name", "m"), ("version", "3")) if f"{{{part}}}" in path}


def test_head_is_answered_as_get_and_slashes_at_the_end_do_not_matter() -> None:
    assert find("HEAD", "/v2/health/ready") == find("GET", "/v2/health/ready/") == ("ready", {})


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v2/models/m", "GET, HEAD"),
        ("GET", "/v2/models/m/infer", "POST"),
        ("PUT", "/v2/models/m/versions/2/attack", "POST"),
        ("POST", "/v2", "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
    ],
)
def test_another_method_is_405_and_says_what_is_allowed(method: str, path: str, allow: str) -> None:
    with pytest.raises(MethodNotAllowedError, match=f"^{method} is not supported at {path} .it answers to") as raised:
        find(method, path)
    assert error_headers(raised.value) == {"Allow": allow} and raised.value.http_status == 405


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v2/models/m/inferr", "did you mean 'infer'?"),
        ("/v2/models/m/versions/1/atack", "did you mean 'attack'?"),
        ("/v1/models/m", "the server describes itself at GET /v2"),
        ("/v2/models/../../etc/passwd", "known: "),
    ],
)
def test_another_path_is_404_and_names_the_nearest(path: str, hint: str) -> None:
    with pytest.raises(NoSuchPathError) as raised:
        find("GET", path)
    assert hint in str(raised.value)
