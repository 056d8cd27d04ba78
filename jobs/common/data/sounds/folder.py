"""Folders of sounds, one folder a class, all of them decoded when the set is loaded.

<root>/train/<class>/*.wav  <root>/test/<class>/*.wav      or val in place of test
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from jobs.common.audio.files import ENDINGS, read
from jobs.common.data.image_files import hidden
from jobs.common.data.sets import Split
from jobs.common.data.sounds.base import Clips, Source, check_size, clip_of
from service.errors import InputError

FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val")}
THREADS = 8


def sound_folder(split: Split, source: Source) -> Clips:
    """Folders of sounds of the user's own, in `root`."""
    if source.root is None:
        raise InputError("sound_folder needs root, the folder that holds train/<class>/ and test/<class>/")
    choices = [source.folder / folder for folder in FOLDERS[split]]
    folder = next((each for each in choices if each.is_dir()), choices[0])
    return clips_of_folder("sound_folder", folder, source)


def clips_of_folder(name: str, folder: Path, source: Source) -> Clips:
    """The clips in the folders of a folder. InputError, one sentence, if there are none or one cannot be read."""
    try:
        classes = sorted(each.name for each in os.scandir(folder) if each.is_dir() and not hidden(each.name))
    except OSError as error:
        raise InputError(f"{name}: {str(folder)!r} does not hold folders of sounds: {error.strerror}") from error
    files = {label: sound_files(folder / each) for label, each in enumerate(classes)}
    if empty := [classes[label] for label, each in files.items() if not each]:
        raise InputError(f"{name}: there is no sound in {str(folder / empty[0])!r}", f"endings: {', '.join(ENDINGS)}")
    if not files:
        raise InputError(f"{name}: there is no folder in {str(folder)!r}")
    labelled = [(file, label) for label, each in files.items() for file in each]
    check_size(name, len(labelled), source)

    def clip(place: int) -> torch.Tensor:
        file = labelled[place][0]
        return clip_of(read(file, f"sound {str(file)!r}"), source, place)

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        samples = torch.stack(list(pool.map(clip, range(len(labelled)))))
    labels = torch.tensor([label for _, label in labelled])
    names = [str(file.relative_to(folder)) for file, _ in labelled]
    return Clips(name, classes, samples, labels, source.rate, names)


def sound_files(folder: Path) -> list[Path]:
    """The sounds in a folder, by name."""
    return sorted(
        Path(each.path)
        for each in os.scandir(folder)
        if each.is_file() and not hidden(each.name) and Path(each.name).suffix.lower() in ENDINGS
    )
