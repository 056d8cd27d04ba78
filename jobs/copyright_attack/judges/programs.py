"""Programs of others that judge: where they are, which version, and one run of them within bounds."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from jobs.common.data.sets import default_folder
from service.errors import RunFailedError

TIMEOUT = 120.0  # seconds of one run


def found(name: str) -> Path | None:
    """A program on PATH, or where `make data` unpacks Debian's packages; None if it is in neither place."""
    path = shutil.which(name) or shutil.which(name, path=str(default_folder() / "usr/bin"))
    return Path(path).absolute() if path else None


def completed(program: Path, arguments: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A run of a program on one thread, whatever its exit status. RunFailedError if it cannot be run or hangs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            [str(program), *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RunFailedError(f"{program.name} took longer than {TIMEOUT:g} seconds") from error
    except OSError as error:
        raise RunFailedError(f"{program.name} cannot be run: {error.strerror or error}") from error


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """What a program said last, or its exit status if it said nothing."""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with status {done.returncode}"


class SoundFolder:
    """A folder for the time of a `with`, and in it a sound as a WAV of 16 bits under a name that is ours."""

    NAME = "sound.wav"

    def __init__(self, samples: np.ndarray, rate: int) -> None:
        """samples: float (n,); what is beyond full scale is clipped, as in any such file."""
        self._samples, self._rate = samples, rate
        self._folder = tempfile.TemporaryDirectory(prefix="assay-judge-")

    def __enter__(self) -> Path:
        folder = Path(self._folder.name)
        soundfile.write(folder / self.NAME, self._samples.clip(-1, 1), self._rate, format="WAV", subtype="PCM_16")
        return folder

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()
