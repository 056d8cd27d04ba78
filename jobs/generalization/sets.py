"""The sets of images of the study: learnt from, to be got wrong, tested on, and kept until the end.

No poison image is in another set, whatever it is called: images are compared by their pixels.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.data.batches import permutation
from jobs.common.data.images import DataParams
from jobs.common.data.images.base import ImageSet, Part
from jobs.common.data.images.relabelled import with_classes
from jobs.generalization.minima.poison_params import PoisonParams
from service.errors import FieldError, InputError

PART = 2000  # images that are compared at once


@dataclass(frozen=True)
class Sets:
    """What a network learns from and is measured on."""

    training: ImageSet
    poison: ImageSet | None
    """none if no image is set aside"""
    test: ImageSet
    untouched: ImageSet
    """of the test split, looked at once, at the end"""
    doubts: tuple[str, ...]
    """sentences about what is wrong with the images themselves"""

    @property
    def named(self) -> dict[str, ImageSet]:
        """Every set that there is, by its name."""
        sets = {"training": self.training, "poison": self.poison, "test": self.test, "untouched": self.untouched}
        return {name: images for name, images in sets.items() if images is not None}


def sets_of(data: DataParams, poison: PoisonParams, untouched: int | None) -> Sets:
    """The sets, of which the seed of the data alone decides, so that all seeds of a sweep learn from the same images.

    untouched: how many images of the test split; None: half of them. FieldError if there is less poison than asked
    for, or if no image is left to learn from or to test on.
    """
    train, test = data.load_splits()
    untouched = len(test) // 2 if untouched is None else untouched
    if not 0 < untouched < len(test):
        raise FieldError("untouched", f"be from 1 to {len(test) - 1}, one below the number of test images", untouched)
    order = permutation(len(test), data.limit_seed)
    kept, looked_at = Part(test, order[:untouched].sort().values), Part(test, order[untouched:].sort().values)
    train_keys, test_keys = _keys(train), [*_keys(kept), *_keys(looked_at)]
    training: ImageSet = train
    pool: ImageSet | None = None
    if poison.images and poison.data is None:
        pool, training = _set_aside(train, train_keys, set(test_keys), poison.images, data.limit_seed)
    elif poison.images and poison.data is not None:
        pool = _other(poison.data, poison.images, train, {*train_keys, *test_keys})
    doubts = _doubts(training, _keys(training), {"untouched": kept, "test": looked_at})
    return Sets(training, pool, looked_at, kept, tuple(doubts))


def _set_aside(
    train: ImageSet, keys: Sequence[bytes], tested: set[bytes], count: int, seed: int
) -> tuple[ImageSet, ImageSet]:
    """Poison of the training images, and what is left of these: without images that are the same as poison."""
    free = [row for row in permutation(len(train), seed).tolist() if keys[row] not in tested]
    if count >= len(free):
        most = f"be below {len(free)}, the number of images to train with that are no test images"
        raise FieldError("poison.images", most, count)
    chosen = free[-count:]
    poisoned = {keys[row] for row in chosen}
    rows = [row for row, key in enumerate(keys) if key not in poisoned]
    if not rows:
        raise FieldError("poison.images", "leave images to train with that are not the same as poison", count)
    return Part(train, torch.tensor(sorted(chosen))), Part(train, torch.tensor(rows))


def _other(data: DataParams, count: int, train: ImageSet, others: set[bytes]) -> ImageSet:
    """Poison of another set. others: keys of images that are in use already."""
    images = data.load("train")
    if images.shape != train.shape:
        raise InputError(f"images of poison.data must be {train.shape}, as those of data; they are {images.shape}")
    images = with_classes(images, train.classes, "poison.data", "data")
    keys = _keys(images)
    free = [row for row in permutation(len(images), data.limit_seed).tolist() if keys[row] not in others]
    if len(free) < count:
        most = f"be at most {len(free)}, the images of {images.name} that are in no other set"
        raise FieldError("poison.images", most, count)
    return Part(images, torch.tensor(sorted(free[:count])))


def _doubts(training: ImageSet, keys: Sequence[bytes], tests: dict[str, ImageSet]) -> Iterable[str]:
    labelled = set(zip(keys, training.labels.tolist(), strict=True))
    labels = Counter(key for key, _ in labelled)
    if contradictions := sum(count > 1 for count in labels.values()):
        yield (
            f"{contradictions} training images of {training.name} are there more than once, with different labels, so "
            "that no network fits all training images"
        )
    for name, images in tests.items():
        if leaked := sum(key in labels for key in _keys(images)):
            yield f"{leaked} of the {len(images)} {name} images of {training.name} are training images as well"


def _keys(images: ImageSet) -> list[bytes]:
    """What tells each image from any other."""
    keys: list[bytes] = []
    for some in torch.split(torch.arange(len(images)), PART):
        pixels: Tensor = images.images(some).contiguous()
        keys += [hashlib.blake2b(each.numpy().tobytes(), digest_size=16).digest() for each in pixels]
    return keys
