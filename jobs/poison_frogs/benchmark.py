"""The protocol of the poisoning benchmark: what a victim is trained on, and what counts as clean-label.

Source: Schwarzschild et al. 2021 ("Just how toxic is data poisoning?") and its code.
"""

from dataclasses import dataclass

import numpy as np

from jobs.poison_frogs.setups import Setup
from service.errors import InputError, unknown

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


def check_setup(setup: Setup, train_labels: np.ndarray, test_labels: np.ndarray) -> None:
    """InputError unless a setup fits a data set. labels: int64 (n,), of its two splits."""
    if setup.target_index >= len(test_labels) or max(setup.base_indices) >= len(train_labels):
        asked = f"test image {setup.target_index} and training images up to {max(setup.base_indices)}"
        raise InputError(f"the setup asks for {asked}, the data have {len(test_labels)} and {len(train_labels)}")
    if test_labels[setup.target_index] != setup.target_class:
        found = f"its label is {test_labels[setup.target_index]}"
        raise InputError(f"target {setup.target_index} is to be of class {setup.target_class}, {found}")
    for base in setup.base_indices:
        if train_labels[base] != setup.base_class:
            found = f"its label is {train_labels[base]}"
            raise InputError(f"base {base} is to be of class {setup.base_class}, {found}: that is no clean label")


def fine_tuning_set(labels: np.ndarray, setup: Setup, size: int, classes: int) -> np.ndarray:
    """The clean images that a victim is trained on, beside the poisons, which take the place of their bases.

    Of each class the first size // classes images of the training split that are no bases; of the poisoned class as
    many fewer as there are poisons, so that with them the set has its size. labels: int64 (n,), in 0..classes-1, of the
    training split, which the setup is known to fit (`check_setup`). Returns int64, by class; the poisons come after
    them. InputError if a class has too few images.
    """
    free = np.ones(len(labels), dtype=bool)
    free[list(setup.base_indices)] = False
    parts = []
    for label in range(classes):
        count = size // classes - (len(setup.base_indices) if label == setup.base_class else 0)
        if count < 0:
            raise InputError(f"{len(setup.base_indices)} poisons do not fit into {size // classes} images of a class")
        rows = np.flatnonzero((labels == label) & free)[:count]
        if len(rows) < count:
            raise InputError(f"class {label} has {len(rows)} images that are no bases, and {count} are wanted")
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
