"""Colour maps: a map that is known is found again in simulated photographs, from all sides, and nowhere else."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.invisibility_cloak.physical import layout
from jobs.invisibility_cloak.physical.colour_map import ColourMap, estimated, estimated_from, fitted, read
from jobs.invisibility_cloak.physical.marks import find_marks
from jobs.invisibility_cloak.physical.rephotograph import CameraParams, photographed_sheet
from jobs.invisibility_cloak.physical.views import moved, sampled, view
from service.errors import InputError
from tests.jobs.invisibility_cloak.physical.sheets import drawn

# a printer that loses saturation and a camera that is warm: rows 1, r, g, b, r², g², b², rg, rb, gb
TRUE = ColourMap(
    torch.tensor(
        [
            [0.12, 0.09, 0.08],
            [0.55, 0.05, 0.04],
            [0.08, 0.60, 0.06],
            [0.02, 0.04, 0.55],
            [0.10, 0.00, 0.00],
            [0.00, 0.08, 0.00],
            [0.00, 0.00, 0.06],
            [0.03, 0.02, 0.00],
            [0.00, 0.00, 0.02],
            [0.00, 0.01, 0.03],
        ]
    ),
    error=0.0,
    unmapped=0.0,
)
CORNERS = np.array([[160.0, 90.0], [690.0, 130.0], [730.0, 880.0], [110.0, 840.0]])
PATCH = np.random.default_rng(0).integers(0, 256, (200, 120, 3), dtype=np.uint8)
ALL = torch.from_numpy(np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3), -1).reshape(1, -1, 1, 3)).float()
ALL_COLOURS = ALL.permute(0, 3, 1, 2)  # (1, 3, 729, 1)


def picture(turn: int = 0, colours: ColourMap | None = TRUE, camera: CameraParams | None = None) -> Image.Image:
    """A sheet on a table, 800 x 1000 pixels, its upper left corner at any of the four places."""
    return photographed_sheet(
        drawn(patch=PATCH),
        colours,
        np.roll(CORNERS, -turn, 0),
        (1000, 800),
        camera or CameraParams(),
        torch.Generator().manual_seed(turn),
    )


def test_a_polynomial_is_fitted_exactly_and_errors_are_those_of_leaving_out() -> None:
    printed = layout.colours()
    images = torch.from_numpy(printed.T[None, :, :, None]).float()
    clean = TRUE(images)[0, :, :, 0].T.double().numpy()
    exact = fitted(printed, clean)
    assert exact.error < 1e-6 and torch.allclose(exact.coefficients, TRUE.coefficients, atol=1e-5)
    noisy = clean + np.random.default_rng(1).normal(0, 0.02, clean.shape)
    whole = fitted(printed, noisy)
    left_out = []
    for place in range(len(printed)):
        others = np.arange(len(printed)) != place
        map_ = fitted(printed[others], noisy[others])
        one = torch.from_numpy(printed[place][None, :, None, None]).float()
        polynomial = torch.einsum("t,tc->c", _terms(one.flatten()), map_.coefficients)
        left_out.append(polynomial.numpy() - noisy[place])
    assert whole.error == pytest.approx(float(np.sqrt(np.square(left_out).mean())), rel=1e-3)


def _terms(colour: torch.Tensor) -> torch.Tensor:
    r, g, b = colour
    return torch.stack([torch.ones(()), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b])


@pytest.mark.parametrize("turn", range(4))
def test_the_map_is_found_again_in_a_photograph_of_the_sheet(turn: int) -> None:
    found = estimated_from(picture(turn), "a4")
    assert float((found(ALL_COLOURS) - TRUE(ALL_COLOURS)).abs().mean()) < 0.012
    assert found.error < 0.02 < 0.1 < found.unmapped


def test_marks_are_found_to_a_fraction_of_a_pixel() -> None:
    grey = np.asarray(picture().convert("RGB"), np.float64).mean(2) / 255
    sheet = np.array([[0, 0], [210, 0], [210, 297], [0, 297]], np.float64)
    expected = moved(layout.marks("a4"), view(sheet, CORNERS))
    found = find_marks(grey)
    order = [int(np.hypot(*(found - each).T).argmin()) for each in expected]
    assert sorted(order) == [0, 1, 2, 3] and np.abs(found[order] - expected).max() < 0.6
    assert (np.diff([*order, order[0]]) % 4 == 1).all()  # clockwise


def test_light_that_falls_off_is_no_hindrance() -> None:
    pixels = np.asarray(picture(), np.float64)
    dimmed = pixels * np.linspace(1.0, 0.55, pixels.shape[1])[None, :, None]
    found = estimated_from(Image.fromarray(dimmed.astype(np.uint8)), "a4")
    assert found.error > estimated_from(picture(), "a4").error  # and it is seen in the error


def test_the_map_keeps_the_gradient_and_survives_a_file(tmp_path: Path) -> None:
    patch = torch.rand(3, 4, 5).requires_grad_()
    TRUE(patch).sum().backward()
    assert patch.grad is not None and float(patch.grad.min()) > 0
    (tmp_path / "map.json").write_text(TRUE.text())
    assert torch.equal(read(tmp_path / "map.json").coefficients, TRUE.coefficients)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"coefficients": [[1, 2, 3]], "error": 0, "unmapped": 0}', "x" * 200_000]
)
def test_files_that_hold_no_map(text: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(InputError, match="map.json holds no colour map"):
        read(tmp_path / "map.json")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "nothing.json")


def test_photographs_that_show_no_sheet(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for pixels in (noise, np.zeros_like(noise), np.full_like(noise, 255), noise[:3, :3]):
        with pytest.raises(InputError):
            estimated_from(Image.fromarray(pixels), "a4")
    cut = picture().crop((0, 0, 800, 600))  # two corners are outside
    with pytest.raises(InputError, match="shows 2 of the four corner marks"):
        estimated_from(cut, "a4")
    with pytest.raises(InputError, match="the colours between the marks are not those of a sheet of A4"):
        blank = drawn()
        blank[:, 100:-100] = blank[100:-100] = 200  # marks without swatches
        estimated_from(
            photographed_sheet(blank, None, CORNERS, (1000, 800), CameraParams(), torch.Generator().manual_seed(0)),
            "a4",
        )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match="a.png cannot be read"):
        estimated(tmp_path / "a.png", "a4")
    file = io.BytesIO()
    picture().save(file, "PNG")
    (tmp_path / "sheet.png").write_bytes(file.getvalue())
    assert estimated(tmp_path / "sheet.png", "a4").error < 0.02


def test_a_perspective_takes_points_where_it_should() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    assert np.allclose(moved(square, view(square, CORNERS)), CORNERS)
    # the crossing of the diagonals stays the crossing of the diagonals
    (x, y), (a, b), (c, d), (e, f) = CORNERS
    crossing = np.linalg.solve([[c - x, -(e - a)], [d - y, -(f - b)]], [a - x, b - y])[0]
    middle = moved(np.array([[0.5, 0.5]]), view(square, CORNERS))[0]
    assert np.allclose(middle, [x + crossing * (c - x), y + crossing * (d - y)])
    image = np.arange(12.0).reshape(3, 4, 1)
    assert np.allclose(sampled(image, np.array([[0.5, 0.5], [2.0, 1.0], [-5.0, 1.0]]), 7.0)[:, 0], [0, 3.5, 7])
