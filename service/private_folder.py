"""Folders for what may be lost, where all users of a machine have theirs: nobody else can open one of these."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def private_folder(name: str, within: str) -> Path:
    """This user's folder of that name; a fresh one where somebody else, or something else, has taken the name."""
    folder = Path(within) / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=within))
    folder.chmod(0o700)
    return folder
