"""The images that training sees: full batches, each in an order and with changes of its own; a part is held out.

Batch number `index` depends on the run's seed and on `index` alone, so a resumed run sees the batches it would have
seen, and every rank of a shared training has the same global batch.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from jobs.common.data.batches import Epochs, permutation
from jobs.common.data.masks.augmentation import DRAWS, JointAugmentationParams
from jobs.common.data.masks.base import Part, SegmentationSet
from jobs.common.training import parallel
from service.errors import InputError

THREADS = 8  # that decode files


class TrainingData:
    """A data set in two parts: one to train on, one held out."""

    def __init__(
        self,
        images: SegmentationSet,
        held_out: int,
        batch: int,
        augmentation: JointAugmentationParams,
        seed_for: Callable[..., int],
    ) -> None:
        """held_out: images that training never sees. InputError if what is left does not fill one batch."""
        if held_out >= len(images):
            raise InputError(f"held_out: {held_out} of {len(images)} images are not allowed, fewer than all are")
        order = permutation(len(images), seed_for("split"))
        self.held_out = Part(images, order[:held_out])
        self.trained = Part(images, order[held_out:])
        self._epochs = Epochs(len(self.trained), batch, lambda epoch: seed_for("order", epoch))
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
