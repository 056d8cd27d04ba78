"""What an embedded Ray leaves open to the other users of the machine."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from service import catalog
from service.cli.commands import main
from service.cluster import connection, start
from service.errors import ClusterError, SpecError


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(connection, "MOST_OF_SOCKET", 1000)
    return tmp_path


def test_the_folder_of_sessions_is_its_owners_alone(temporary: Path) -> None:
    folder = Path(connection._session_folder())
    assert folder == temporary / f"assay-ray-{os.getuid()}"
    folder.chmod(0o777)
    assert connection._session_folder() == str(folder), "there is one"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_somebody_else_put_there_is_not_used(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / f"assay-ray-{os.getuid()}").symlink_to(temporary / "elsewhere")
    folder = Path(connection._session_folder())
    assert folder.name.startswith("assay-ray-") and not folder.is_symlink()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list((temporary / "elsewhere").iterdir())


def test_a_long_temporary_folder_has_no_room_for_sockets(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_OF_SOCKET", 4)
    assert Path(connection._session_folder()).parent == Path("/tmp")


@pytest.mark.parametrize("command", [["run", "configs/quickstart.yaml"], ["serve"]])
def test_a_ray_without_a_token_is_refused_unless_told(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connection.embedded, "started", lambda *calls: pytest.fail("Ray was started"))
    store = [f"store={tmp_path}/store"] if command[0] == "run" else ["--store", str(tmp_path), "--port", "1"]
    monkeypatch.setattr("serving.app.check_free", lambda host, port, hint: None)
    assert main([*command, *store]) == 2
    assert "RAY_AUTH_MODE must not be disabled" in capsys.readouterr().err
    assert not (tmp_path / "store" / "runs").exists()


@pytest.mark.parametrize(("cpus", "preloaded"), [(2, ["torch"]), (connection.MOST_PRELOADED + 1, None)])
def test_workers_of_an_embedded_ray_import_while_it_starts(
    cpus: int, preloaded: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not where each of many cores would have one that holds torch."""
    options: dict[str, Any] = {}
    monkeypatch.setattr(connection.ray, "init", lambda **given: options.update(given))
    connection._init_local(cpus, None, ["torch"])
    assert (options["_system_config"] or {}).get("preload_python_modules") == preloaded


def test_a_job_is_imported_while_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    @contextmanager
    def connect(*where: Any, preload: list[str]) -> Iterator[None]:
        given["preload"] = preload
        yield

    monkeypatch.setattr(connection, "connect", connect)
    for job, module in {"tests.service.walk": [], "deep_thinking": ["jobs.deep_thinking.job"]}.items():
        with start.connected(job, None, None, False):
            pass
        assert given["preload"] == [start.TRIALS, *module], "a module of the user's own is imported where a trial runs"
        assert catalog.module_of(job) in sys.modules


def test_a_module_that_fails_beside_is_complained_of_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "connect", lambda *where, preload: nullcontext())
    with start.connected("own.absent", None, None, False), pytest.raises(SpecError, match="cannot import 'own.absent'"):
        catalog.load("own.absent")


@pytest.mark.parametrize("address", ["host", ":6379", "host:", "host:x", "host:²", "host:" + "9" * 5000])
def test_an_address_that_is_none_is_one_sentence(address: str) -> None:
    with pytest.raises(ClusterError, match="is not of the form host:port"):
        connection.probe(address)
