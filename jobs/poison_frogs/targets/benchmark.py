"""The protocol of the poisoning benchmark: what a victim is trained on, and what counts as clean-label.

A setup names a test image and training images of another class. Poisons are made of these and take their place: a
victim learns from a balanced part of the training split in which there are poisons instead of their bases. Its control
has the bases themselves there.

Source: Schwarzschild et al. 2021 ("Just how toxic is data poisoning?") and its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from jobs.common.data.images.base import ImageSet
from jobs.common.params import StudyParams
from jobs.poison_frogs.poisons.export import to_8_bits
from jobs.poison_frogs.poisons.search import Crafts
from jobs.poison_frogs.targets.selection import Target, class_margins, nearest
from jobs.poison_frogs.targets.setups import Setup, load
from service.errors import FieldError, InputError, unknown

LEVELS = 9  # grey levels of 255 that a poison may be off: 8/255, and one that is lost where files are truncated


@dataclass(frozen=True)
class Track:
    """What a set of 100 setups is evaluated on. All allow changes of 8/255."""

    poisons: int
    size: int
    """images that a victim is trained on"""
    classes: int


TRACKS = {
    "cifar10_transfer": Track(25, 2_500, 10),
    "cifar10_from_scratch": Track(500, 50_000, 10),
    "tinyimagenet_transfer": Track(250, 50_000, 100),
    "tinyimagenet_from_scratch": Track(250, 100_000, 200),
}


def track(name: str) -> Track:
    """A track of the benchmark by name."""
    if name not in TRACKS:
        raise unknown("track", name, TRACKS)
    return TRACKS[name]


class SetupsParams(StudyParams):
    """Trials of the poisoning benchmark: they say what is attacked, and which images become poisons."""

    file: str = Field(min_length=1, description="setups on the disk of every node: JSON, or a pickle as published")
    first: int = Field(0, ge=0, description="setups to leave out at the beginning of the file")
    count: int | None = Field(None, ge=1, description="setups to run; none: all that follow")
    track: str | None = Field(None, description=f"size and poisons as published: {', '.join(TRACKS)}")
    size: int | None = Field(
        None, ge=2, description="instead of a track: images that a victim learns from, with poisons"
    )
    levels: int = Field(LEVELS, ge=1, le=255, description="grey levels of 255 that a poison may be off its base")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.track is None) == (self.size is None):
            raise ValueError("name either a track or a size")
        if self.track is not None and self.track not in TRACKS:
            raise FieldError("track", f"be one of {', '.join(TRACKS)}", self.track)
        return self

    @property
    def images(self) -> int:
        """That a victim learns from."""
        return track(self.track).size if self.track is not None else self.size or 0

    def load(self) -> tuple[Setup, ...]:
        """The setups that are to be run. InputError if there are fewer, or if they are not of the track."""
        all_setups = load(self.file)
        chosen = all_setups[self.first :][: self.count]
        if not chosen or (self.count is not None and len(chosen) < self.count):
            if self.first >= len(all_setups):
                raise FieldError("setups.first", f"be below {len(all_setups)}, the setups of the file", self.first)
            left = len(all_setups) - self.first
            raise FieldError("setups.count", f"be at most {left}, the setups after the first {self.first}", self.count)
        counts = {len(each.base_indices) for each in chosen}
        if len(counts) > 1:
            raise InputError(f"setups: they have {min(counts)} to {max(counts)} bases, and all must have as many")
        if self.track is not None and counts != {track(self.track).poisons}:
            raise InputError(f"setups: {self.track} has {track(self.track).poisons} poisons, these have {counts.pop()}")
        return chosen


def load_setups(params: SetupsParams | None, train: ImageSet, test: ImageSet) -> tuple[Setup, ...]:
    """The setups that are to be run, () without params. InputError unless they fit the data."""
    setups = () if params is None else params.load()
    for setup in setups:
        check_setup(setup, train.labels.numpy(), test.labels.numpy())
    return setups


def check_setup(setup: Setup, train_labels: np.ndarray, test_labels: np.ndarray) -> None:
    """InputError unless a setup fits a data set. labels: int64 (n,), of its two splits."""
    if setup.target_index >= len(test_labels) or max(setup.base_indices) >= len(train_labels):
        asked = f"test image {setup.target_index} and training images up to {max(setup.base_indices)}"
        raise InputError(f"the setup asks for {asked}, the data have {len(test_labels)} and {len(train_labels)}")
    if test_labels[setup.target_index] != setup.target_class:
        label = int(test_labels[setup.target_index])
        raise FieldError(
            f"the label of target {setup.target_index}", f"be {setup.target_class}, as the setup says", label
        )
    for base in setup.base_indices:
        if train_labels[base] != setup.base_class:
            requirement = f"be {setup.base_class}, as the setup says: a clean label is not changed"
            raise FieldError(f"the label of base {base}", requirement, int(train_labels[base]))


def fine_tuning_set(labels: np.ndarray, bases: Sequence[int], base_class: int, size: int, classes: int) -> np.ndarray:
    """The clean images that a victim is trained on, beside the poisons, which take the place of their bases.

    Of each class the first size // classes images of the training split that are no bases; of the poisoned class as
    many fewer as there are poisons, so that with them the set has its size. labels: int64 (n,), in 0..classes-1, of the
    training split. bases: places in it, of the base class, one for each poison: some may be named twice. Returns int64,
    by class; the poisons come after them.
    InputError if a class has too few images.
    """
    free = np.ones(len(labels), dtype=bool)
    free[list(bases)] = False
    parts = []
    for label in range(classes):
        count = size // classes - (len(bases) if label == base_class else 0)
        if count < 0:
            raise FieldError(
                "setups.size", f"be at least {classes * len(bases)}, {classes} classes of all poisons", size
            )
        rows = np.flatnonzero((labels == label) & free)[:count]
        if len(rows) < count:
            available = f"at most {len(rows)}, the images of class {label} that are no bases"
            raise FieldError("images of a class in setups.size", f"be {available}", count)
        parts.append(rows)
    return np.concatenate(parts)


def levels(poisons: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """The largest change of each poison in grey levels, after its round trip. uint8 (n, ...), alike. Returns (n,)."""
    if poisons.dtype != np.uint8 or bases.dtype != np.uint8 or poisons.shape != bases.shape:
        shapes = f"{poisons.dtype} {poisons.shape} and {bases.dtype} {bases.shape}"
        raise InputError(f"poisons and bases must be uint8 images of one shape, not {shapes}")
    changes = np.abs(poisons.astype(np.int16) - bases.astype(np.int16))
    largest: np.ndarray = changes.reshape(len(poisons), -1).max(1, initial=0)
    return largest


def check_clean_label(
    poisons: np.ndarray, bases: np.ndarray, labels: np.ndarray, setup: Setup, most: int = LEVELS
) -> None:
    """InputError unless poisons keep to the protocol: one for each base, of its class, few grey levels off it.

    poisons, bases: uint8 (n, ...), in the order of the setup, as files hold them. labels: int64 (n,), of the poisons.
    most: grey levels; the released code takes 9/255 itself, which 8/255 can become where it truncates. Images that are
    rounded have 8 at most.
    """
    if not len(poisons) == len(bases) == len(labels) == len(setup.base_indices):
        counts = f"{len(poisons)} poisons, {len(bases)} bases and {len(labels)} labels"
        raise InputError(f"{counts} do not fit the {len(setup.base_indices)} bases of the setup")
    for row in np.flatnonzero(labels != setup.base_class)[:1]:
        raise InputError(f"poison {row} has label {labels[row]}, its base {setup.base_class}: that is no clean label")
    changes = levels(poisons, bases)
    for row in np.flatnonzero(changes > most)[:1]:
        raise InputError(f"poison {row} is {changes[row]}/255 off its base, up to {most}/255 is allowed")


def targets_of(
    setups: Sequence[Setup], probabilities: Sequence[Tensor], test_features: Tensor, features: Tensor
) -> list[Target]:
    """The targets of setups, each with a training set of its own.

    probabilities: (classes,) for each, by its victim without poison. test_features: (all of the test split, D).
    features: (n, D) of the training images.
    """
    near = nearest(test_features[[each.target_index for each in setups]], features).tolist()
    targets = []
    for group, (setup, shares, neighbour) in enumerate(zip(setups, probabilities, near, strict=True)):
        margins, confidence = class_margins(shares.clamp(min=1e-30).log()[None], setup.target_class)
        targets.append(
            Target(
                index=setup.target_index,
                true_class=setup.target_class,
                base_class=setup.base_class,
                confidence=float(confidence),
                margin=float(margins),
                neighbour=neighbour,
                bases=setup.base_indices,
                group=group,
            )
        )
    return targets


def check_crafts(setups: Sequence[Setup], crafts: Crafts, train: ImageSet, most: int) -> None:
    """InputError unless all poisons keep to the protocol. train: the training images, that bases are of."""
    for place, setup in enumerate(setups):
        if made := crafts.of(place, len(setup.base_indices)):
            poisons = torch.stack([one.image for one in made]).numpy()
            bases = to_8_bits(train.images(torch.tensor([one.base for one in made]))).numpy()
            labels = np.full(len(made), setup.base_class)
            try:
                check_clean_label(poisons, bases, labels, setup, most)
            except InputError as error:
                raise InputError(f"setup {place}: {error}") from error
