"""The protocol of the poisoning benchmark."""

import numpy as np
import pytest

from jobs.poison_frogs.targets.benchmark import TRACKS, check_clean_label, check_setup, fine_tuning_set, levels, track
from jobs.poison_frogs.targets.setups import Setup
from service.errors import InputError, UnknownNameError

SETUP = Setup(target_class=3, target_index=17, base_class=1, base_indices=(4, 9, 2))


def test_poisons_replace_their_bases() -> None:
    """By hand: four a class, two bases of class 1, which is two short and skips them."""
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1])
    found = fine_tuning_set(labels, (9, 3), 1, size=8, classes=2)
    assert found.tolist() == [0, 2, 5, 7, 1, 4]
    assert len(found) + 2 == 8


def test_a_base_that_is_named_twice_makes_way_for_two_poisons() -> None:
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1])
    clean = fine_tuning_set(labels, (9, 9), 1, size=8, classes=2)
    assert clean.tolist() == [0, 2, 5, 7, 1, 3] and len(clean) + 2 == 8


def test_fine_tuning_set_of_a_track() -> None:
    """2,500 of CIFAR-10's training split with 25 poisons: 250 of each class, against a loop over all images."""
    labels = np.random.default_rng(0).integers(0, 10, 50_000)
    bases = tuple(np.random.default_rng(1).permutation(np.flatnonzero(labels == 6)[:400])[:25].tolist())
    expected: dict[int, list[int]] = {label: [] for label in range(10)}
    for row, label in enumerate(labels.tolist()):
        if row not in bases and len(expected[label]) < (225 if label == 6 else 250):
            expected[label].append(row)
    found = fine_tuning_set(labels, bases, 6, track("cifar10_transfer").size, track("cifar10_transfer").classes)
    assert found.tolist() == [row for label in range(10) for row in expected[label]] and len(found) == 2475


def test_too_few_images() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    with pytest.raises(InputError, match="must be at most 10, the images of class 0 that are no bases; it is 11"):
        fine_tuning_set(labels, range(10, 16), 1, 22, 2)
    with pytest.raises(InputError, match="setups.size must be at least 12, .*; it is 10"):
        fine_tuning_set(labels, range(10, 16), 1, 10, 2)
    assert len(fine_tuning_set(labels, range(10, 16), 1, 20, 2)) == 14, "as many as there are"
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10_transfer'"):
        track("cifar10_transfr")
    assert {name: (each.poisons, each.size) for name, each in TRACKS.items()} == {
        "cifar10_transfer": (25, 2_500),
        "cifar10_from_scratch": (500, 50_000),
        "tinyimagenet_transfer": (250, 50_000),
        "tinyimagenet_from_scratch": (250, 100_000),
    }


def test_setups_against_data() -> None:
    train, test = np.array([0, 0, 1, 0, 1, 0, 0, 0, 0, 1]), np.full(18, 3)
    check_setup(SETUP, train, test)
    with pytest.raises(InputError, match="test image 17 and training images up to 9, the data have 17 and 10"):
        check_setup(SETUP, train, test[:17])
    with pytest.raises(InputError, match="the data have 18 and 9"):
        check_setup(SETUP, train[:9], test)
    with pytest.raises(InputError, match="the label of target 17 must be 3, as the setup says; it is 2"):
        check_setup(SETUP, train, test - 1)
    with pytest.raises(InputError, match="the label of base 4 must be 1, .*; it is 0"):
        check_setup(SETUP, np.where(np.arange(10) == 4, 0, train), test)


def test_clean_label() -> None:
    """8 levels and the one that truncation costs; the labels and the number of the bases."""
    bases = np.random.default_rng(0).integers(10, 240, (3, 4, 4, 3)).astype(np.uint8)
    labels = np.array([1, 1, 1])
    poisons = bases.copy()
    poisons[1, 2, 2, 1] += 9
    poisons[2, 0, 0, 0] -= 8
    assert levels(poisons, bases).tolist() == [0, 9, 8]
    check_clean_label(poisons, bases, labels, SETUP)
    with pytest.raises(InputError, match="poison 1 is 9/255 off its base, up to 8/255 is allowed"):
        check_clean_label(poisons, bases, labels, SETUP, most=8)
    poisons[2, 0, 0, 0] = bases[2, 0, 0, 0] - 10
    with pytest.raises(InputError, match="poison 2 is 10/255 off its base, up to 9/255 is allowed"):
        check_clean_label(poisons, bases, labels, SETUP)
    with pytest.raises(InputError, match="poison 1 has label 0, its base 1: that is no clean label"):
        check_clean_label(bases, bases, np.array([1, 0, 1]), SETUP)
    with pytest.raises(InputError, match="2 poisons, 3 bases and 3 labels do not fit the 3 bases"):
        check_clean_label(bases[:2], bases, labels, SETUP)
    with pytest.raises(InputError, match=r"must be uint8 images of one shape, not float64"):
        levels(bases / 255, bases)


def test_truncation_costs_a_level() -> None:
    """Why nine are taken: 8/255 less, in float32, is cut down to 9 levels less at some shades."""
    shades = np.arange(8, 256, dtype=np.uint8)
    lowered = shades.astype(np.float32) / np.float32(255) - np.float32(8 / 255)
    truncated = (lowered.clip(0, 1) * np.float32(255)).astype(np.uint8)
    assert levels(truncated[:, None], shades[:, None]).max() == 9
