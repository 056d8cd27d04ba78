"""What an embedded Ray leaves open to the other users of the machine."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from service.cli.commands import main
from service.cluster import connection


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
