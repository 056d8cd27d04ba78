"""Music that studies use, by name: songs for a database, and songs that are not in it.

Another set is another module here and another line in DATASETS.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field

from jobs.common.data.music.base import Songs, Source
from jobs.common.imports import name_of, resolve
from service.errors import InputError

DATASETS = {
    "tunes": "jobs.common.data.music.tunes:tunes",
    "openmsx": "jobs.common.data.music.openmsx:openmsx",
    "music_folder": "jobs.common.data.music.folder:music_folder",
}


class MusicParams(Source):
    """The songs of a study of music identification."""

    name: Annotated[str, name_of(DATASETS, "data set")] = Field(
        "tunes",
        description="tunes (composed and synthesised from the seed); openmsx (31 pieces as MIDI, played through a "
        "sound font, `make data`); music_folder (any folder of sounds, `root`); or an import path "
        "mypackage.module:build, called with source, which returns the enrolled and the other Songs",
    )

    def load(self) -> tuple[Songs, Songs]:
        """Songs that are in the database, and songs that are not; the same for the same parameters.

        InputError, one sentence, if they are not there, damaged, or too few.
        """
        build: Callable[[Source], tuple[Songs, Songs]] = resolve(self.name, DATASETS, "data set")
        enrolled, others = build(self)
        if ":" in self.name:
            for part in (enrolled, others):
                _check(self.name, part, self.rate)
        return enrolled, others


def _check(name: str, songs: object, rate: int) -> None:
    """InputError if a set of the user's own is not as Songs are."""
    if not isinstance(songs, Songs):
        raise InputError(f"data set {name!r} must return two Songs; one is a {type(songs).__name__}")
    if songs.rate != rate:
        raise InputError(f"songs of {name!r} must have {rate:,} samples a second; they have {songs.rate:,}")
    for title, sound in zip(songs.names, songs.sounds, strict=True):
        if sound.dtype != torch.float32 or sound.ndim != 1 or not len(sound):
            form = f"{sound.dtype} {tuple(sound.shape)}"
            raise InputError(f"song {title!r} of {name!r} must be torch.float32 (samples,); it is {form}")
        if not bool((sound.abs() <= 1).all()):
            raise InputError(f"samples of {title!r} of {name!r} must be within [-1, 1]; some are not")
