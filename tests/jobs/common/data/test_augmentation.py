"""Augmentation of batches against a search for the window that was cut out."""

import pytest
import torch

from jobs.common.data.augmentation import flip, pad_and_crop


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_every_window_of_the_padded_image_is_cut_out_equally_often(padding: int) -> None:
    side, count = 2 * padding + 1, 4000
    images = torch.rand(1, 2, 5, 4, generator=stream()).expand(count, 2, 5, 4)
    cropped = pad_and_crop(images, padding, stream(1))
    padded = torch.zeros(2, 5 + 2 * padding, 4 + 2 * padding)
    padded[:, padding : padding + 5, padding : padding + 4] = images[0]
    total = 0
    for top in range(side):
        for left in range(side):
            window = padded[:, top : top + 5, left : left + 4]
            found = int((cropped == window).flatten(1).all(1).sum())
            expected = count / side**2
            assert abs(found - expected) <= 5 * expected**0.5
            total += found
    assert total == count, "nothing else is cut out"


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(2000, 3, 2, 5, generator=stream())
    mirrored = flip(images, stream(1))
    kept = (mirrored == images).flatten(1).all(1)
    turned = (mirrored == torch.from_numpy(images.numpy()[..., ::-1].copy())).flatten(1).all(1)
    assert bool((kept ^ turned).all())
    assert abs(int(turned.sum()) - 1000) < 5 * 500**0.5


@pytest.mark.parametrize("change", [lambda images, s: pad_and_crop(images, 2, s), flip])
def test_draws_come_from_the_generator_alone(change) -> None:
    images, state = torch.rand(64, 1, 6, 6), torch.get_rng_state()
    assert torch.equal(change(images, stream(3)), change(images, stream(3)))
    assert not torch.equal(change(images, stream(3)), change(images, stream(4)))
    assert torch.equal(torch.get_rng_state(), state)
