"""Labelled sounds that the studies use, by name. Another set is another module here and another line in DATASETS."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field

from jobs.common.data.sets import LimitParams, Split, check_parts, listed
from jobs.common.data.sounds.base import Part, SoundSet, Source
from jobs.common.imports import name_of, resolve
from service.errors import InputError

DATASETS = {
    "spoken_digits": "jobs.common.data.sounds.spoken:spoken_digits",
    "pocketsphinx": "jobs.common.data.sounds.recordings:pocketsphinx",
    "readings": "jobs.common.data.sounds.recordings:readings",
    "alsa": "jobs.common.data.sounds.recordings:alsa",
    "sound_folder": "jobs.common.data.sounds.folder:sound_folder",
}


class DataParams(Source, LimitParams):
    """The sounds that a network learns to recognise, or is tried with."""

    name: Annotated[str, name_of(DATASETS, "data set")] = Field(
        "spoken_digits",
        description="spoken_digits (synthesised: `speech` says which words, voices, pitches and speeds); pocketsphinx, "
        "readings, alsa (recordings, `make data`); sound_folder (on disk); or an import path mypackage.module:build, "
        "called with split and source",
    )

    def load(self, split: Split) -> SoundSet:
        """The clips of a split. InputError, one sentence, if they are not there, damaged, or fewer than the limit."""
        build: Callable[[Split, Source], SoundSet] = resolve(self.name, DATASETS, "data set")
        clips = build(split, self)
        if ":" in self.name:
            _check(self.name, clips)
        return self.limited(clips, split, Part)

    def load_splits(self) -> tuple[SoundSet, SoundSet]:
        """The clips to train and those to test. InputError as `load`, and if classes, rates or lengths differ."""
        train, test = self.load("train"), self.load("test")
        if tuple(test.classes) != tuple(train.classes):
            ours, others = listed(train.classes), listed(test.classes)
            raise InputError(f"classes of {train.name} to test must be those to train, {ours}; they are {others}")
        if (test.rate, test.samples) != (train.rate, train.samples):
            ours, others = (f"{each.samples} samples at {each.rate} a second" for each in (train, test))
            raise InputError(f"clips of {train.name} to test must be {ours}, as those to train; they are {others}")
        return train, test


def _check(name: str, clips: SoundSet) -> None:
    """InputError if a set of the user's own is not as a SoundSet is."""
    check_parts(name, clips, ("name", "classes", "rate", "samples", "labels", "names", "factors", "digest", "sounds"))
    labels, count = clips.labels, len(clips)
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.shape != (count,) or not count:
        raise InputError(f"data set {name!r}: the labels are not one int64 for each of its {count} clips")
    if int(labels.min()) < 0 or int(labels.max()) >= len(clips.classes):
        bounds = f"from {int(labels.min())} to {int(labels.max())}"
        raise InputError(f"labels of {name!r} must be from 0 to {len(clips.classes) - 1}; they are {bounds}")
    for what, values in {"names": clips.names, **clips.factors}.items():
        if len(values) != count:
            raise InputError(f"{what} of {name!r} must be {count}, one for each clip; they are {len(values)}")
    first = clips.sounds(torch.arange(1))
    if first.dtype != torch.float32 or first.shape != (1, clips.samples):
        form = f"{first.dtype} {tuple(first.shape)}"
        raise InputError(f"clips of {name!r} must be torch.float32 {(1, clips.samples)}; the first is {form}")
    if not bool((first.abs() <= 1).all()):
        raise InputError(f"samples of {name!r} must be within [-1, 1]; those of the first clip are not")
