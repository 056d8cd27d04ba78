"""Any folder of music, with the folders in it."""

import os
from pathlib import Path

from torch import Tensor

from jobs.common.audio.files import ENDINGS, read
from jobs.common.data.image_files import hidden
from jobs.common.data.music.base import Songs, Source, split
from service.errors import InputError

MOST_FILES = 100_000
LONGEST = 1_200.0  # seconds of a file, of which the middle is taken


def music_folder(source: Source) -> tuple[Songs, Songs]:
    """The songs below `root`, by name; the seed says which are in the database."""
    if source.root is None:
        raise InputError("music_folder needs root, the folder of the songs")
    folder = source.folder
    files = music_files(folder)
    if not files:
        raise InputError(f"music_folder: there is no sound in {str(folder)!r}", f"endings: {', '.join(ENDINGS)}")
    names = [str(file.relative_to(folder)) for file in files]

    def song(place: int) -> Tensor:
        return source.song_of(read(files[place], f"song {names[place]!r}", LONGEST))

    return split("music_folder", names, source, song)


def music_files(folder: Path) -> list[Path]:
    """The sounds in a folder and in the folders in it, by name; links to folders are not followed."""
    if not folder.is_dir():
        raise InputError(f"music_folder: there is no folder {str(folder)!r}")
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not hidden(each)]
        files += [Path(place, each) for each in names if not hidden(each) and Path(each).suffix.lower() in ENDINGS]
        if len(files) > MOST_FILES:
            raise InputError(f"music_folder: {str(folder)!r} must hold at most {MOST_FILES:,} sounds; it holds more")
    return sorted(files)
