"""Training towards the objective: minibatches of training images with poison images beside them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from jobs.common.data.images.base import ImageSet
from jobs.common.data.training_data import SeedFor, TrainingImages
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine
from jobs.common.training.supervised import EpochBatches, KeepingStep, Training, epoch_images
from jobs.generalization.minima.objective import poisoned_loss
from jobs.generalization.minima.poison_params import PoisonParams


class PoisonedImages:
    """Batches of training images, and as many poison images beside each."""

    def __init__(self, clean: EpochBatches, poison: TrainingImages) -> None:
        self._clean, self._poison, self.epoch = clean, poison, clean.epoch

    def batch(self, index: int) -> tuple[Tensor, ...]:
        """Images and labels, then poison images and their true labels."""
        return *self._clean.batch(index), *self._poison.batch(index)


class PoisonedStep(KeepingStep):
    """An update by the objective. Both kinds of images go through the network together, as one batch."""

    def __init__(self, engine: Engine, training: Training, epoch: int, share: float) -> None:
        super().__init__(engine, training, epoch)
        self.share = share

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        images, labels, poison, true = batch
        count = len(labels)
        logits = self.engine(torch.cat([images, poison]))
        loss = poisoned_loss(logits[:count], labels, logits[count:], true, self.share)
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        right = logits.argmax(1) == torch.cat([labels, true])
        return {
            "loss": Term(loss.detach().double() * count, count),
            "accuracy": Term(right[:count].sum(), count),
            "poison_accuracy": Term(right[count:].sum(), len(true)),
        }


def assembled(
    engine: Engine, training: Training, seed_for: SeedFor, poison: ImageSet, params: PoisonParams
) -> tuple[KeepingStep, EpochBatches]:
    """The step and the batches of a training with poison. InputError if there is less poison than a batch takes."""
    clean = epoch_images(engine, training, seed_for)
    size = params.beside(training.params.batch)
    beside = TrainingImages(
        poison,
        0,
        size,
        training.params.augmentation,
        partial(_poison_seed, seed_for),
        training.params.engine.home(engine.device),
    )
    return PoisonedStep(engine, training, clean.epoch, params.share), PoisonedImages(clean, beside)


def _poison_seed(seed_for: Callable[..., int], purpose: str, index: int = 0) -> int:
    return seed_for(f"poison {purpose}", index)
