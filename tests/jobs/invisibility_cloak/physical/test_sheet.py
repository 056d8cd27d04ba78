"""The sheets to print: exact sizes, read back out of the PDF by a reader of its own."""

import numpy as np
import pytest

from jobs.invisibility_cloak.physical import layout
from jobs.invisibility_cloak.physical.layout import SheetParams, tiles
from jobs.invisibility_cloak.physical.sheet import print_sheets
from service.errors import FieldError, InputError
from tests.jobs.invisibility_cloak.physical import pdf

PATCH = np.random.default_rng(0).integers(0, 256, (100, 60, 3), dtype=np.uint8)


def test_a_patch_that_fits_is_printed_once_and_in_real_size() -> None:
    (page,) = pdf.pages(print_sheets(PATCH, SheetParams(width=120.0), "a patch"))
    assert (page.width, page.height) == pytest.approx((210, 297), abs=0.01)
    (image,) = page.images
    assert (image.width, image.height) == pytest.approx((120, 200), abs=0.01)
    assert np.array_equal(image.pixels, PATCH)
    assert image.left + image.width / 2 == pytest.approx(105, abs=0.01)
    # it lies inside the band of marks and swatches
    assert image.left >= layout.BAND and image.top >= layout.BAND
    assert image.top + image.height <= 297 - layout.BAND - layout.CAPTION


def test_swatches_and_marks_are_where_photographs_are_read() -> None:
    (page,) = pdf.pages(print_sheets(PATCH, SheetParams(width=100.0), "a patch"))
    for (x, y), colour in zip(layout.swatches("a4"), layout.colours(), strict=True):
        ((side, printed),) = [each[2:] for each in page.squares if np.hypot(each[0] - x, each[1] - y) < 0.01]
        assert side == pytest.approx(layout.SWATCH, abs=0.01) and printed == pytest.approx(tuple(colour), abs=1e-3)
    for x, y in layout.marks("a4"):
        sides = sorted(side for at, level, side, _ in page.squares if np.hypot(at - x, level - y) < 0.01)
        assert sides == pytest.approx([12 * 3 / 7, 12 * 5 / 7, 12], abs=0.01)


@pytest.mark.parametrize(("paper", "width", "count"), [("a4", 400.0, 9), ("a3", 400.0, 4), ("a3", 255.0, 2)])
def test_a_large_patch_is_spread_over_sheets(paper: layout.PaperName, width: float, count: int) -> None:
    params = SheetParams(paper=paper, width=width, overlap=8.0)
    pages = pdf.pages(print_sheets(PATCH, params, "a patch"))
    every = tiles(params, width * 50 / 30)
    assert len(pages) == len(every) == count
    covered = np.zeros((round(width * 50 / 30), round(width)), np.int64)
    for page, tile in zip(pages, every, strict=True):
        assert (page.width, page.height) == pytest.approx(layout.PAPERS[paper], abs=0.01)
        (image,) = page.images
        # what is seen of it is the tile: the smallest of the rectangles that clip it
        left, top, across, down = min(image.clips, key=lambda clip: clip[2] * clip[3])
        assert (across, down) == pytest.approx((tile.width, tile.height), abs=0.02)
        # the file holds the pixels that the tile has a part of, each in real size
        pitch = width / 60
        rows, columns, _ = image.pixels.shape
        assert (image.width, image.height) == pytest.approx((columns * pitch, rows * pitch), abs=0.02)
        first_row = round((image.top - top + tile.top) / pitch)
        first_column = round((image.left - left + tile.left) / pitch)
        assert image.top == pytest.approx(top - tile.top + first_row * pitch, abs=0.02)
        assert image.left == pytest.approx(left - tile.left + first_column * pitch, abs=0.02)
        part = PATCH[first_row : first_row + rows, first_column : first_column + columns]
        assert np.array_equal(image.pixels, part)
        assert image.left <= left + 0.02 and image.left + image.width >= left + across - 0.02
        assert image.top <= top + 0.02 and image.top + image.height >= top + down - 0.02
        room = layout.inside(paper)
        assert across <= room[0] + 0.02 and down <= room[1] + 0.02
        covered[round(tile.top) : round(tile.top + tile.height), round(tile.left) : round(tile.left + tile.width)] += 1
    assert covered.min() == 1
    if count > 1:
        assert covered.max() > 1  # sheets overlap, so that they can be glued


def test_the_same_patch_is_the_same_file() -> None:
    first, second = (print_sheets(PATCH, SheetParams(), "a patch") for _ in range(2))
    assert first == second


def test_sheets_that_cannot_be() -> None:
    with pytest.raises(FieldError, match="width must be so small that 64 sheets of A4 are enough, not"):
        print_sheets(PATCH, SheetParams(width=2500.0), "a patch")
    with pytest.raises(InputError, match="must be uint8"):
        print_sheets(PATCH.astype(np.float32), SheetParams(), "a patch")
    with pytest.raises(InputError, match="must be uint8"):
        print_sheets(PATCH[:0], SheetParams(), "a patch")


def test_swatches_do_not_look_alike_when_a_sheet_is_turned() -> None:
    colours = layout.colours()
    assert len(colours) == len(layout.swatches("a4")) == 72 and len(np.unique(colours.round(6), axis=0)) == 72
    for turn in range(1, 72):
        assert np.square(colours - np.roll(colours, turn, 0)).mean() > 0.05
