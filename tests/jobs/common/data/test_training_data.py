"""Training sets: what is held out is never learnt from, batches are the same whenever they are asked for."""

from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import Pixels
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.masks.base import Pairs
from jobs.common.data.training_data import EpochImages, TrainingImages, TrainingMasks, hold_out
from service.errors import FieldError, InputError
from service.provenance import derive_seed

COUNT, HELD_OUT, BATCH = 40, 10, 8
PIXELS = torch.randint(0, 256, (COUNT, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
CHANGES = AugmentationParams(padding=1, flip=True)


def seed_for(*key: Any) -> int:
    return derive_seed(0, *key)


def labelled() -> Pixels:
    return Pixels("noise", ("a", "b"), PIXELS, torch.arange(COUNT) % 2)


def masked() -> Pairs:
    return Pairs("noise", ("a", "b"), ((0, 0, 0), (255, 255, 255)), PIXELS, PIXELS[:, 0] % 2)


def images_of(**options: Any) -> TrainingImages:
    plain = {"held_out": HELD_OUT, "batch": BATCH, "augmentation": AugmentationParams(), "seed_for": seed_for}
    return TrainingImages(labelled(), **plain | options)


def masks_of(**options: Any) -> TrainingMasks:
    plain = {"held_out": HELD_OUT, "batch": BATCH, "augmentation": JointAugmentationParams(flip=False)}
    return TrainingMasks(masked(), **plain | {"seed_for": seed_for} | options)


def rows(images: Tensor) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()) for image in images}


def test_what_is_held_out_is_never_learnt_from() -> None:
    images, masks = images_of(), masks_of()
    held_out = rows(images.held_out.images(torch.arange(HELD_OUT)))
    pairs = torch.stack([masks.held_out.pair(index)[0] for index in range(HELD_OUT)])
    assert rows(pairs.float() / 255) == held_out, "the same of either kind"
    for data in (images, masks):
        assert data.epoch == 3
        trained = rows(torch.cat([data.batch(index)[0] for index in range(6)]))
        assert len(held_out) == HELD_OUT and len(trained) > 24 and not held_out & trained


@pytest.mark.parametrize("data", [images_of(augmentation=CHANGES), masks_of(augmentation=JointAugmentationParams())])
def test_a_batch_is_the_same_whenever_it_is_asked_for(data: TrainingImages | TrainingMasks) -> None:
    batches = [data.batch(index) for index in range(7)]
    for index in (6, 2, 5):
        assert all(torch.equal(*pair) for pair in zip(data.batch(index), batches[index], strict=True))
    assert not torch.equal(batches[0][0], batches[3][0]), "the next epoch has another order"


def test_an_epoch_may_be_begun_anywhere() -> None:
    first, again = (EpochImages(labelled(), BATCH, CHANGES, seed_for) for _ in range(2))
    batches = [first.batch(index) for index in range(10)]
    assert first.epoch == 5
    for index in range(5, 10):
        assert all(torch.equal(*pair) for pair in zip(again.batch(index), batches[index], strict=True))


def test_masks_go_with_their_images() -> None:
    images, masks = masks_of(augmentation=JointAugmentationParams(flip=True)).batch(0)
    assert torch.equal((255 * images[:, 0]).round().long() % 2, masks)
    assert images.is_contiguous(memory_format=torch.channels_last) and masks.dtype == torch.int64


def test_sets_that_are_too_small_are_refused() -> None:
    with pytest.raises(FieldError, match="training.held_out must be below 40, the number of training .*; it is 40"):
        hold_out(40, 40, 0)
    for build in (images_of, masks_of):
        with pytest.raises(InputError, match="30 instances does not fill one batch of 31"):
            build(batch=31)
