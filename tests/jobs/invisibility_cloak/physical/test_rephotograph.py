"""What a camera adds, against scipy's blur, the statistics of noise and Pillow's own JPEG."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from jobs.invisibility_cloak.physical.rephotograph import CameraParams, Reproduction, blurred, photographed

STREAM = torch.Generator().manual_seed(0)


def test_blur_is_that_of_scipy() -> None:
    images = torch.rand(2, 3, 20, 24)
    ours = blurred(images, 1.3).numpy()
    theirs = images.numpy()
    for axis in (2, 3):
        theirs = gaussian_filter1d(theirs, 1.3, axis, mode="nearest", radius=4)
    assert np.abs(ours - theirs).max() < 1e-5
    assert blurred(images, 0.0) is images


def test_noise_is_as_large_as_it_says() -> None:
    images = torch.full((1, 3, 100, 100), 0.5)
    seen = photographed(images, CameraParams(blur=0.0, noise=0.05, quality=None), STREAM)
    assert abs(float(seen.std()) - 0.05) < 0.002 and abs(float(seen.mean()) - 0.5) < 0.002


def test_images_are_those_of_a_file_and_the_gradient_passes() -> None:
    images = torch.rand(1, 3, 32, 32).requires_grad_()
    seen = photographed(images, CameraParams(blur=0.0, noise=0.0, quality=50), STREAM)
    levels = seen.detach() * 255
    assert float((levels - levels.round()).abs().max()) < 1e-3 and float((seen - images).detach().abs().mean()) > 0.01
    seen.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and torch.equal(images.grad, torch.ones_like(images))
    exact = photographed(images, CameraParams(blur=0.0, noise=0.0, quality=None), STREAM)
    assert torch.equal(exact, images)


def test_the_same_seed_is_the_same_photograph() -> None:
    images = torch.rand(1, 3, 16, 16)
    first, second = (photographed(images, CameraParams(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_nothing_between_screen_and_photograph_is_nothing() -> None:
    patch, images = torch.rand(3, 5, 4), torch.rand(1, 3, 8, 8)
    assert Reproduction().printed(patch) is patch and Reproduction().photographed(images, None) is images
    camera = Reproduction(camera=CameraParams())
    assert torch.equal(camera.photographed(images, None), camera.photographed(images, None))
