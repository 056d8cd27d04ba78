"""The images that training sees: full batches, each in an order and with an augmentation of its own; a part held out.

Batch number `index` depends on the run's seed and on `index` alone, so a resumed run sees the batches it would have
seen, and every rank of a shared training has the same global batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.batches import Epochs, permutation
from jobs.common.data.images.base import ImageSet, Part
from service.errors import InputError


class TrainingData:
    """A data set in two parts: one to train on, one held out."""

    def __init__(
        self,
        images: ImageSet,
        held_out: int,
        batch: int,
        augmentation: AugmentationParams,
        seed_for: Callable[..., int],
    ) -> None:
        """held_out: images that training never sees. InputError if what is left does not fill one batch."""
        if held_out >= len(images):
            raise InputError(f"held_out: {held_out} of {len(images)} images are not allowed, fewer than all are")
        order = permutation(len(images), seed_for("split"))
        self.held_out = Part(images, order[:held_out])
        self._trained = Part(images, order[held_out:])
        self._epochs = Epochs(len(self._trained), batch, lambda epoch: seed_for("order", epoch))
        self.epoch = self._epochs.steps
        """minibatches in an epoch"""
        self._augmentation, self._seed_for = augmentation, seed_for

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Minibatch number `index`: float (batch, channels, height, width) in [0, 1] and int64 (batch,)."""
        chosen = self._epochs.indices(index)
        stream = torch.Generator().manual_seed(self._seed_for("augmentation", index))
        images = self._trained.images(chosen, stream)
        images = self._augmentation.apply(images, stream)
        return images, self._trained.labels[chosen]
