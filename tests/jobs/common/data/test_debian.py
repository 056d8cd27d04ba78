"""Data from Debian packages: what is had is whole, what is not had is said."""

import shutil
from pathlib import Path

import pytest

from jobs.common.data import debian
from jobs.common.data.debian import DebianPackage


def fake_apt(folder: Path, monkeypatch: pytest.MonkeyPatch, holds: str) -> None:
    """An apt-get that builds a real package with one file, in place of downloading it."""
    script = f"""#!/bin/sh
mkdir -p tree/DEBIAN "tree/{holds}"
{{
  echo "Package: $2"; echo "Version: 1"; echo "Architecture: all"
  echo "Maintainer: x <x@example.org>"; echo "Description: x"
}} > tree/DEBIAN/control
echo data > "tree/{holds}/file"
dpkg-deb --build --root-owner-group tree "$2_1_all.deb" && rm -r tree
"""
    (folder / "apt-get").write_text(script)
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this system")


@needs_dpkg
def test_a_package_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(tmp_path, monkeypatch, "usr/share/thing")
    package = DebianPackage("thing", "usr/share/thing", "a thing")
    assert debian.fetch(package, tmp_path / "data") is None
    assert (tmp_path / "data/usr/share/thing/file").read_text() == "data\n"
    (tmp_path / "apt-get").unlink()
    assert debian.fetch(package, tmp_path / "data") is None
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["usr"], "no scratch is left"


@needs_dpkg
def test_a_package_that_moved_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(tmp_path, monkeypatch, "usr/share/elsewhere")
    problem = debian.fetch(DebianPackage("thing", "usr/share/thing", "a thing"), tmp_path / "data")
    assert problem is not None and "does not hold usr/share/thing" in problem


def test_no_apt_is_said_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["debian", str(tmp_path / "data")])
    debian.main()
    out = capsys.readouterr().out
    assert out.count("missing: there is no apt on this system") == len(debian.PACKAGES)
