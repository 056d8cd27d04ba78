"""Rendering against a composition pixel by pixel with the tools of others, its gradient, its edges and its order."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import RBFInterpolator
from skimage.transform import ProjectiveTransform
from torch import Tensor
from torch.nn import functional

from jobs.common.detection.boxes import Boxes
from jobs.invisibility_cloak.patch.median import median_filtered
from jobs.invisibility_cloak.patch.placement import CONTROLS, CORNERS, Draws, draws, turned, windows_of
from jobs.invisibility_cloak.patch.rendering import check_patch, render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.sampling import coverage
from jobs.invisibility_cloak.patch.targets import Targets, targets_of
from service.errors import InputError

WILD = RenderingParams(
    median=3, wrinkle=0.1, perspective=0.4, rotation=40, lift=0.2, brightness=0.2, contrast=(0.5, 1.5), scale=0.5
)
CORNERS_OF = [[4.0, 3.0, 20.0, 40.0], [12.0, 8.0, 30.0, 36.0], [-6.0, 10.0, 10.0, 44.0], [20.0, 2.0, 50.0, 30.0]]
IMAGES_OF = [0, 0, 1, 1]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(seed: int = 0, height: int = 20, width: int = 12) -> tuple[Tensor, Tensor, Targets]:
    stream = generator(seed)
    patch, images = torch.rand(3, height, width, generator=stream), torch.rand(2, 3, 48, 40, generator=stream)
    return patch, images, Targets(torch.tensor(CORNERS_OF), torch.tensor(IMAGES_OF), (0, 0, 0, 0))


def composed(patch: Tensor, images: Tensor, targets: Targets, params: RenderingParams, drawn: Draws) -> np.ndarray:
    """Box after box and pixel after pixel, with scipy's splines and interpolation and scikit-image's homographies."""
    result = images.double().numpy().copy()
    height, width = patch.shape[1:]
    filtered = np.stack([ndimage.median_filter(each, params.median, mode="mirror") for each in patch.double().numpy()])
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    for number, (corners, image) in enumerate(zip(targets.corners.tolist(), targets.images.tolist(), strict=True)):
        coloured = np.clip(filtered * float(drawn.contrast[number]) + float(drawn.brightness[number]), 1e-6, 0.99999)
        left, top, right, bottom = corners
        wide = params.scale * math.hypot(right - left, bottom - top)
        tall = wide * height / width
        middle = (left + right) / 2, (top + bottom) / 2 + float(drawn.lifts[number]) * (bottom - top)
        controls = np.array(CONTROLS)
        warp = RBFInterpolator(
            controls + drawn.wrinkles[number].numpy(), controls, kernel="thin_plate_spline", degree=1
        )
        view = ProjectiveTransform.from_estimate(
            np.array(CORNERS) + inward * drawn.insets[number].numpy(), np.array(CORNERS)
        )
        angle = float(drawn.angles[number])
        rows, columns = np.mgrid[: images.shape[2], : images.shape[3]] + 0.5
        across, down = columns.ravel() - middle[0], rows.ravel() - middle[1]
        turned = (across + 1j * down) * np.exp(-1j * angle)
        on_patch = view(np.stack([turned.real / wide + 0.5, turned.imag / tall + 0.5], 1))
        ones = ndimage.map_coordinates(
            np.pad(np.ones((height, width)), 1), (on_patch[:, ::-1] * (height, width) + 0.5).T, order=1
        )
        wrinkled = warp(on_patch)[:, ::-1] * (height, width) - 0.5
        for channel in range(3):
            colours = ndimage.map_coordinates(coloured[channel], wrinkled.T, order=1, mode="nearest")
            flat = result[image, channel].reshape(-1)
            flat[:] = flat * (1 - ones) + ones * colours
    return result


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_composition_of_its_parts(seed: int) -> None:
    patch, images, targets = made(seed)
    rendered = render(patch, images, targets, WILD, generator(seed))
    expected = composed(patch, images, targets, WILD, draws(len(targets), WILD, generator(seed)))
    assert np.abs(rendered.numpy() - expected).max() < 2e-4
    assert np.abs(images.numpy() - expected).max() > 0.5


def test_without_draws_it_is_upright_and_as_it_is() -> None:
    """A patch of the size at which it is drawn, on whole pixels: a copy of its pixels."""
    patch = torch.rand(3, 10, 6, generator=generator())
    images = torch.zeros(1, 3, 40, 40)
    # a box whose diagonal is 50 and whose centre lies on a corner of four pixels
    targets = Targets(torch.tensor([[5.0, 0.0, 35.0, 40.0]]), torch.tensor([0]), (0, 0, 0, 0))
    rendered = render(patch, images, targets, RenderingParams(scale=6 / 50, median=1))
    assert torch.allclose(rendered[0, :, 15:25, 17:23], patch.clamp(1e-6, 0.99999), atol=1e-5)
    rendered[0, :, 15:25, 17:23] = 0
    assert float(rendered.abs().max()) < 1e-4


def test_the_gradient_is_that_of_finite_differences() -> None:
    patch, images, targets = made(height=6, width=4)
    params = WILD.model_copy(update={"median": 1, "samples": 2})
    weights = torch.randn(images.shape, generator=generator(3), dtype=torch.float64)
    patch = (0.3 + 0.4 * patch).double()  # nothing is cut off
    params = params.model_copy(update={"contrast": (0.9, 1.1), "brightness": 0.05})

    def value(values: Tensor) -> Tensor:
        return (render(values, images.double(), targets, params, generator()) * weights).sum()

    at = patch.requires_grad_()
    (gradient,) = torch.autograd.grad(value(at), [at])
    step = 1e-4
    for channel, row, column in [(0, 0, 0), (1, 3, 2), (2, 5, 3), (0, 2, 1)]:
        moved = torch.zeros_like(patch)
        moved[channel, row, column] = step
        with torch.no_grad():
            slope = (value(patch + moved) - value(patch - moved)) / (2 * step)
        assert float(gradient[channel, row, column]) == pytest.approx(float(slope), rel=1e-4, abs=1e-6)
    assert float(gradient.abs().sum()) > 0


def test_the_gradient_reaches_the_image_where_no_patch_is() -> None:
    patch, images, targets = made()
    at = images.requires_grad_()
    (gradient,) = torch.autograd.grad(render(patch, at, targets, WILD, generator()).sum(), [at])
    assert float(gradient[0, 0, 47, 39]) == 1.0 and float(gradient[0, 0, 22, 21]) == 0.0


@pytest.mark.parametrize("samples", [1, 3])
def test_a_patch_has_no_dark_rim(samples: int) -> None:
    """White on white stays white: what is sampled beyond the border is the border's colour, and blended."""
    _, _, targets = made()
    params = WILD.model_copy(update={"contrast": (1.0, 1.0), "brightness": 0.0, "samples": samples})
    rendered = render(torch.ones(3, 9, 7), torch.ones(2, 3, 48, 40), targets, params, generator())
    assert float(rendered.min()) >= 0.9999
    mixed = render(torch.ones(3, 9, 7), torch.zeros(2, 3, 48, 40), targets, params, generator())
    assert bool(((mixed > 0.01) & (mixed < 0.99)).any()), "edges are soft"


def test_later_boxes_cover_earlier_ones() -> None:
    _, images, _ = made()
    corners = torch.tensor([[4.0, 4.0, 36.0, 44.0], [4.0, 4.0, 36.0, 44.0]])
    params = RenderingParams(scale=0.5, median=1, contrast=(0.5, 2.0), rotation=0, lift=0, wrinkle=0, perspective=0)
    patch = torch.full((3, 8, 6), 0.3)
    both = Targets(corners, torch.tensor([0, 0]), (0, 0, 0, 0))
    drawn = draws(2, params, generator())
    assert abs(float(drawn.contrast[0] - drawn.contrast[1])) > 0.05
    rendered = render(patch, images, both, params, generator())
    expected = 0.3 * drawn.contrast[1] + drawn.brightness[1]
    assert rendered[0, :, 24, 20].tolist() == pytest.approx([float(expected)] * 3, abs=1e-5)


def test_a_box_is_drawn_the_same_alone_and_among_others_on_any_image() -> None:
    patch, images, targets = made()
    alone = Targets(targets.corners[2:3], torch.tensor([0]), (0, 0, 0, 0))
    single = render(patch, images[1:], alone, RenderingParams())
    without_last = Targets(targets.corners[:3], targets.images[:3], (0, 0, 0, 0))
    assert torch.equal(single[0], render(patch, images, without_last, RenderingParams())[1])


def test_more_samples_of_a_pixel_come_near_to_the_mean() -> None:
    """A fine checkerboard, drawn small, is grey in the limit; one sample of a pixel is black or white."""
    patch = ((torch.arange(40)[:, None] + torch.arange(40)) % 2).float().expand(3, -1, -1)
    targets = Targets(torch.tensor([[10.0, 10.0, 34.0, 42.0]]), torch.tensor([0]), (0, 0, 0, 0))
    spread = {}
    for samples in (1, 8):
        params = RenderingParams(scale=0.25, median=1, samples=samples)
        spread[samples] = float(render(patch, torch.zeros(1, 3, 60, 60), targets, params)[0, 0, 24:28, 20:24].std())
    assert spread[8] < 0.1 * max(spread[1], 0.2)


def test_coverage_is_that_of_a_patch_of_ones_between_zeros() -> None:
    at = torch.rand(500, 2, generator=generator()) * 1.6 - 0.3
    grid = (2 * at - 1).view(1, 1, -1, 2)
    expected = functional.grid_sample(torch.ones(1, 1, 5, 3), grid, align_corners=False).flatten()
    assert torch.allclose(coverage(at.T, 5, 3), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_median_is_scipys(size: int) -> None:
    patch = torch.rand(3, 16, 12, generator=generator())
    expected = np.stack([ndimage.median_filter(each, size, mode="mirror") for each in patch.numpy()])
    assert np.array_equal(median_filtered(patch, size).numpy(), expected)


def boxes(corners: list[list[float]], labels: list[int] | None = None) -> Boxes:
    return Boxes(torch.tensor(corners).view(-1, 4), torch.tensor(labels or [0] * len(corners)))


def test_boxes_without_a_patch_are_counted_by_their_reason() -> None:
    whole = [
        boxes(
            [[0, 0, 20, 40], [5, 5, 5, 30], [9, 9, 4, 20], [1, 1, 5, 8], [50, 0, 70, 40], [0, 0, 20, 40]], [0] * 5 + [1]
        ),
        boxes([]),
        boxes([[-10, -10, 20, 30], [math.nan, 0, 20, 40], [0, -50, 20, -1]]),
    ]
    targets = targets_of(whole, 0, (48, 40), smallest=10)
    assert targets.corners.tolist() == [[0, 0, 20, 40], [-10, -10, 20, 30]]
    assert targets.images.tolist() == [0, 2] and targets.skipped == (3, 1, 2, 0)


def test_of_too_many_boxes_some_are_drawn() -> None:
    row = [[float(10 * place), 0.0, 10.0 * place + 8, 20.0] for place in range(12)]
    whole = [boxes(row), boxes(row[:2])]
    first = targets_of(whole, 0, (30, 200), most=5)
    assert first.corners.tolist() == row[:5] + row[:2] and first.skipped == (0, 0, 0, 7)
    chosen = {
        tuple(targets_of(whole, 0, (30, 200), most=5, generator=generator(seed)).corners[:, 0].tolist())
        for seed in range(6)
    }
    assert len(chosen) > 3 and all(len(each) == 7 and list(each[:5]) == sorted(each[:5]) for each in chosen)


def test_without_boxes_images_stay_as_they_are() -> None:
    patch, images, _ = made()
    none = targets_of([boxes([]), boxes([])], 0, (48, 40))
    assert render(patch, images, none, WILD, generator()) is images


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        (torch.full((3, 4, 4), torch.nan), "must be finite numbers"),
        (torch.full((3, 4, 4), 1.5), "within \\[0, 1\\]; they are from 1.5 to 1.5"),
        (torch.zeros(4, 4), "must be float \\(3, height, width\\)"),
        (torch.zeros(4, 4, 4), "must be float"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "must be float"),
        (torch.zeros(3, 0, 4), "must be float"),
    ],
)
def test_what_is_no_patch_is_refused(patch: Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_patch(patch)


def test_a_patch_on_many_large_boxes_needs_no_canvas_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are those of windows: 60 boxes of 800 x 1,000 take less than a canvas each would."""
    counted: list[int] = []
    inner: Callable[..., Tensor] = coverage
    monkeypatch.setattr(
        "jobs.invisibility_cloak.patch.rendering.coverage",
        lambda at, *shape: (counted.append(at.shape[1]), inner(at, *shape))[1],
    )
    corners = torch.tensor([[10.0 * place, 50.0, 10.0 * place + 30, 130.0] for place in range(60)])
    targets = Targets(corners, torch.zeros(60, dtype=torch.int64), (0, 0, 0, 0))
    render(torch.rand(3, 50, 30), torch.rand(1, 3, 800, 1000), targets, RenderingParams(), generator())
    assert counted[0] < 60 * 50 * 40


def test_a_patch_can_be_turned_by_an_angle_that_is_said() -> None:
    """A quarter, against torch's own; and by nothing, which is no draw at all."""
    patch = torch.rand(3, 40, 40)
    images, boxes = torch.zeros(1, 3, 60, 60), torch.tensor([[10.0, 10.0, 50.0, 50.0]])
    targets = Targets(boxes, torch.tensor([0]), (0, 0, 0, 0))
    params = RenderingParams(scale=40 / (40 * 2**0.5), median=1)
    turned_patch = render(patch, images, targets, params, turned(1, 90.0))
    expected = render(patch.rot90(-1, (1, 2)), images, targets, params)
    assert torch.allclose(turned_patch, expected, atol=1e-3)
    upright = render(patch, images, targets, params, turned(1, 0.0))
    assert torch.allclose(upright, render(patch, images, targets, params), atol=1e-4)


def test_what_is_drawn_lies_in_the_windows_that_are_said() -> None:
    patch, images, targets = made()
    windows = windows_of(targets, 3, (20, 12), WILD)
    assert windows[2].tolist() == [0] * 4
    for seed in range(20):
        changed = (render(patch, images, targets, WILD, generator(seed)) != images).any(1)
        for image, (left, top, right, bottom) in zip(changed, windows.tolist(), strict=False):
            rows, columns = image.nonzero().unbind(1)
            assert left - 1 < int(columns.min()) and int(columns.max()) < right
            assert top - 1 < int(rows.min()) and int(rows.max()) < bottom
