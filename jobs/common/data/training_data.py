"""Training sets: a part held out, and full batches of the rest, each in an order and with changes of its own.

Batch number `index` depends on the seeds and on `index` alone, so a resumed run sees the batches it would have seen,
and every rank of a shared training has the same global batch.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.audio.transformations import TransformationParams
from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.batches import Epochs, permutation
from jobs.common.data.images import base as images_base
from jobs.common.data.images.base import ImageSet
from jobs.common.data.masks import base as masks_base
from jobs.common.data.masks.augmentation import DRAWS, JointAugmentationParams
from jobs.common.data.masks.base import SegmentationSet
from jobs.common.data.residence import resident
from jobs.common.data.sounds.base import SoundSet
from jobs.common.training import parallel
from service.errors import FieldError, InputError

CPU = torch.device("cpu")
THREADS = 8  # that decode files
SeedFor = Callable[..., int]


@dataclass(frozen=True)
class Parts:
    """Which rows of a set are learnt from, and which are held out: int64 (k,) each."""

    trained: Tensor
    held_out: Tensor


def hold_out(count: int, held_out: int, seed: int) -> Parts:
    """Hold out so many of `count` rows, drawn from the seed. FieldError if none is left to learn from."""
    if held_out >= count:
        raise FieldError("training.held_out", f"be below {count}, the number of training images", held_out)
    order = permutation(count, seed)
    return Parts(order[held_out:], order[:held_out])


class TrainingImages:
    """Labelled images in batches."""

    def __init__(
        self,
        images: ImageSet,
        held_out: int,
        batch: int,
        augmentation: AugmentationParams,
        seed_for: SeedFor,
        home: torch.device = CPU,
    ) -> None:
        """held_out: images that training never sees. home: where the others are kept if they fit.

        InputError if what is left does not fill one batch.
        """
        rows = hold_out(len(images), held_out, seed_for("split"))
        self.held_out = images_base.Part(images, rows.held_out)
        self.shape = (batch, *images.shape)
        """of the images of a batch"""
        self._trained = resident(images_base.Part(images, rows.trained), home)
        self._epochs = Epochs(len(rows.trained), batch, lambda epoch: seed_for("order", epoch))
        self.epoch = self._epochs.steps
        """batches in an epoch"""
        self._augmentation, self._seed_for = augmentation, seed_for

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch number `index`: float (batch, channels, height, width) in [0, 1] and int64 (batch,)."""
        chosen = self._epochs.indices(index)
        stream = torch.Generator().manual_seed(self._seed_for("augmentation", index))
        images = self._augmentation.apply(self._trained.images(chosen, stream), stream)
        return images, self._trained.labels[chosen]


class TrainingMasks:
    """Images with masks in batches, of which each rank makes its rows alone."""

    def __init__(
        self,
        images: SegmentationSet,
        held_out: int,
        batch: int,
        augmentation: JointAugmentationParams,
        seed_for: SeedFor,
        home: torch.device = CPU,
    ) -> None:
        """held_out: images that training never sees. home: where the others are kept if they fit and are not resampled.

        InputError if what is left does not fill one batch.
        """
        rows = hold_out(len(images), held_out, seed_for("split"))
        self.held_out = masks_base.Part(images, rows.held_out)
        self.trained = resident(masks_base.Part(images, rows.trained), CPU if augmentation.resamples else home)
        """those that are learnt from"""
        self._epochs = Epochs(len(rows.trained), batch, lambda epoch: seed_for("order", epoch))
        self.epoch = self._epochs.steps
        """batches in an epoch"""
        self._augmentation, self._seed_for = augmentation, seed_for

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """This rank's rows of batch number `index`: float (rows, 3, height, width) in [0, 1], int64 (rows, height,
        width). InputError if the images differ in size.
        """
        chosen = self._epochs.indices(index)
        stream = torch.Generator().manual_seed(self._seed_for("augmentation", index))
        draws = torch.rand(len(chosen), DRAWS, generator=stream)
        rows, draws = parallel.share(chosen).tolist(), parallel.share(draws)
        if self.trained.in_memory:
            pairs = list(map(self._pair, rows, draws))
        else:
            with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
                pairs = list(pool.map(self._pair, rows, draws))
        sizes = {labels.shape for _, labels in pairs}
        if len(sizes) > 1:
            raise InputError(
                f"{self.trained.name}: images of {len(sizes)} sizes in one batch",
                "augmentation.crop cuts all of them to one size",
            )
        images, labels = zip(*pairs, strict=True)
        batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
        return batch.float() / 255, torch.stack(labels).long()

    def _pair(self, index: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        return self._augmentation.apply(*self.trained.pair(index), draws)


class EpochOrder:
    """A set that is gone through in epochs, all of it learnt from; the changes of an epoch are one stream of draws.

    Batches have to be asked for in order, from the start of an epoch on.
    """

    def __init__(self, count: int, batch: int, seed_for: SeedFor) -> None:
        """count: examples in the set. InputError if they do not fill one batch."""
        self._epochs = Epochs(count, batch, lambda epoch: seed_for("order", epoch))
        self.epoch = self._epochs.steps
        """batches in an epoch"""
        self._seed_for = seed_for
        self._stream = torch.Generator()

    def _draw(self, index: int) -> tuple[Tensor, torch.Generator]:
        """Which examples batch number `index` holds, and where its changes are drawn from."""
        if index % self.epoch == 0:
            self._stream.manual_seed(self._seed_for("augmentation", index // self.epoch))
        return self._epochs.indices(index), self._stream


class EpochImages(EpochOrder):
    """Labelled images in batches, as `EpochOrder` says."""

    def __init__(
        self,
        images: ImageSet,
        batch: int,
        augmentation: AugmentationParams,
        seed_for: SeedFor,
        home: torch.device = CPU,
    ) -> None:
        """home: where the images are kept if they fit. InputError if they do not fill one batch."""
        super().__init__(len(images), batch, seed_for)
        self._images, self._augmentation = resident(images, home), augmentation

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch number `index`: float (batch, channels, height, width) in [0, 1] and int64 (batch,)."""
        chosen, stream = self._draw(index)
        images = self._augmentation.apply(self._images.images(chosen, stream), stream)
        return images, self._images.labels[chosen]


class EpochSounds(EpochOrder):
    """Labelled sounds in batches, as `EpochOrder` says."""

    def __init__(self, sounds: SoundSet, batch: int, augmentation: TransformationParams, seed_for: SeedFor) -> None:
        """InputError if the sounds do not fill one batch."""
        super().__init__(len(sounds), batch, seed_for)
        self._sounds, self._augmentation = sounds, augmentation

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch number `index`: float (batch, samples) and int64 (batch,)."""
        chosen, stream = self._draw(index)
        sounds = self._augmentation.apply(self._sounds.sounds(chosen), self._sounds.rate, stream)
        return sounds, self._sounds.labels[chosen]
