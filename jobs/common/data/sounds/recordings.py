"""Recordings of speech that arrive inside packages (`make data`), cut into clips."""

from pathlib import Path

import torch
from torch import Tensor

from jobs.common.audio.files import Sound, read
from jobs.common.data.debian import ALSA, POCKETSPHINX, DebianPackage
from jobs.common.data.packages import MOONSHINE
from jobs.common.data.sets import Split
from jobs.common.data.sounds.base import Clips, Source, check_size, clip_of
from jobs.common.data.sounds.folder import sound_files
from service.errors import InputError

READINGS = ("beckett", "two_cities")
TEST_EVERY = 5  # of the clips of a recording, one is to test


def pocketsphinx(split: Split, source: Source) -> Clips:
    """Five sentences out of audio books and five spoken playing cards; a class each, whose clips follow each other."""
    root = _folder("pocketsphinx", POCKETSPHINX, source)
    files = [*sound_files(root / "librivox"), *sound_files(root / "cards")]
    return _cut("pocketsphinx", files, split, source)


def readings(split: Split, source: Source) -> Clips:
    """A page of Dickens and a line of Beckett, read aloud; a class each, whose clips follow each other."""
    return _cut("readings", [MOONSHINE.path(f"{name}.wav", source.folder) for name in READINGS], split, source)


def alsa(split: Split, source: Source) -> Clips:
    """Eight spoken places of loudspeakers, such as Front_Center; a class each, whose clips follow each other."""
    root = _folder("alsa", ALSA, source)
    return _cut("alsa", [file for file in sound_files(root) if file.stem != "Noise"], split, source)


def _folder(name: str, package: DebianPackage, source: Source) -> Path:
    folder = source.folder / package.holds
    if not folder.is_dir():
        raise InputError(f"{name}: there is no {str(folder)!r}", hint="`make data` fetches it")
    return folder


def _cut(name: str, files: list[Path], split: Split, source: Source) -> Clips:
    """Recordings in clips without gaps; every TEST_EVERY-th of a recording is to test, or its last if it has fewer.

    A recording of one clip is in both splits.
    """
    clips: list[tuple[str, int, Tensor]] = []
    classes = [file.stem for file in files]
    for label, file in enumerate(files):
        sound = read(file, f"sound {str(file)!r}").at_rate(source.rate)
        count = max(1, len(sound.samples) // source.samples)
        parts = sound.samples[: count * source.samples].chunk(count) if count > 1 else (sound.samples,)
        for place, part in enumerate(parts):
            tested = place % TEST_EVERY == TEST_EVERY - 1 if count >= TEST_EVERY else place == count - 1
            if tested == (split == "test") or count == 1:
                start = f"{file.stem} at {place * source.seconds:.1f} s"
                clips.append((start, label, clip_of(Sound(part, source.rate), source, 1000 * label + place)))
    if not clips:
        raise InputError(f"{name} has no clips to {split}")
    check_size(name, len(clips), source)
    names, labels, samples = zip(*clips, strict=True)
    return Clips(name, classes, torch.stack(samples), torch.tensor(labels), source.rate, names)
