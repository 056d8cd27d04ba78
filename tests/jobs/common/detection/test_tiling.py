"""Large images in tiles: everything is looked at, what a tile cuts is seen elsewhere, and nothing is seen twice."""

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.common.detection.boxes import Boxes, overlaps
from jobs.common.detection.tiling import Tiles, merged, tiled
from service.errors import FieldError
from tests.serving.squares import SIDE, Squares, corners_of, scene

DETECTOR = Squares()
TILES = Tiles(side=128, overlap=0.375)


def detect(images: Tensor) -> list[Boxes]:
    return DETECTOR.detect(images, confidence=0.85)


@pytest.mark.parametrize("length", [1, 128, 129, 200, 208, 209, 1000, 4001])
def test_tiles_cover_a_side_and_overlap_by_what_is_asked(length: int) -> None:
    starts = TILES.starts(length)
    covered = np.zeros(length, int)
    for start in starts:
        covered[start : start + 128] += 1
    assert covered.min() >= 1 and starts[0] == 0 and starts[-1] == max(0, length - 128)
    assert all(128 - (later - start) >= 48 for start, later in zip(starts, starts[1:], strict=False))
    fewer = len(starts) - 1
    assert fewer == 0 or 128 + (fewer - 1) * 80 < length, "one tile fewer would not do"


def test_how_many_images_are_seen_is_known_before() -> None:
    seen: list[int] = []

    def counting(images: Tensor) -> list[Boxes]:
        seen.append(len(images))
        return detect(images)

    for height, width in ((100, 128), (128, 300), (330, 410)):
        seen.clear()
        tiled(counting, torch.zeros(3, height, width), TILES, 0.45, 100)
        assert sum(seen) == TILES.count(height, width) and max(seen) <= TILES.batch


def test_an_image_no_larger_than_a_tile_is_seen_as_it_is() -> None:
    image = scene(128, 120, [(8, 8), (60, 40)], [(80, 80)])
    whole, parts = detect(image[None])[0], tiled(detect, image, TILES, 0.45, 100)
    assert torch.equal(whole.corners, parts.corners) and torch.equal(whole.labels, parts.labels)
    assert torch.equal(whole.scores, parts.scores)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_tiles_find_what_the_whole_shows(seed: int) -> None:
    """Squares anywhere, also across borders of tiles, each once, where a detector that sees all at once finds them."""
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(129, 420, 2))
    cells = [(left, top) for left in range(0, width - SIDE, 64) for top in range(0, height - SIDE, 64)]
    shifts = 4 * generator.integers(0, 4, (len(cells), 2))
    moved = [(left + int(x), top + int(y)) for (left, top), (x, y) in zip(cells, shifts, strict=True)]
    inside = [(left, top) for left, top in moved if left + SIDE <= width and top + SIDE <= height]
    persons, trees = inside[::2], inside[1::2]
    image = scene(height, width, persons, trees)
    boxes = tiled(detect, image, TILES, 0.45, 300)
    for label, squares in enumerate((persons, trees)):
        truth = torch.tensor(corners_of(squares))
        (whole,) = detect(image[None])
        assert sorted(whole.of(label).corners.tolist()) == corners_of(squares)
        common = overlaps(truth, boxes.of(label).corners) > 0.7  # a tile begins between two places of the detector
        assert common.shape[0] == common.shape[1] and (common.sum(0) == 1).all() and (common.sum(1) == 1).all()
    assert boxes.scores is not None and (boxes.scores.diff() <= 0).all(), "the surest first"


def test_what_is_larger_than_a_tile_is_seen_in_the_whole() -> None:
    """A square of 160 pixels: shrunk to a fifth it has the size that the detector knows."""
    image = torch.full((3, 640, 640), 0.5)
    image[:, 160:320, 320:480] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    boxes = tiled(detect, image, TILES, 0.45, 300)
    assert overlaps(boxes.corners, torch.tensor([[320.0, 160.0, 480.0, 320.0]])).max() > 0.8


def test_what_a_tile_cuts_is_dropped() -> None:
    """A square on the border of two tiles that do not have it whole: each sees half of it, and neither is told."""
    halves = torch.zeros(3, 128, 208)
    seen: list[Tensor] = []

    def half(images: Tensor) -> list[Boxes]:
        """A box at the right border, and one at the left."""
        seen.append(images)
        found = torch.tensor([[100.0, 10, 128, 40], [0, 50, 20, 80]])
        return [Boxes(found, torch.tensor([0, 0]), torch.tensor([0.9, 0.9])) for _ in images]

    boxes = tiled(half, halves, TILES, 0.45, 10)
    assert [len(images) for images in seen] == [1, 2]
    own = boxes.corners[(boxes.corners[:, 3] - boxes.corners[:, 1] == 30)]
    assert sorted(own.tolist()) == [[0, 50, 20, 80], [180, 10, 208, 40]], "those at the borders of the image"


def test_boxes_of_two_parts_that_say_the_same_become_one() -> None:
    here = Boxes(torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]), torch.tensor([0, 1]), torch.tensor([0.7, 0.6]))
    there = Boxes(torch.tensor([[0.0, 0, 10, 9], [20, 0, 30, 10]]), torch.tensor([0, 0]), torch.tensor([0.8, 0.5]))
    sure = torch.zeros(4, dtype=torch.bool)
    boxes = merged([here, there], sure, 0.45, 10)
    assert boxes.corners.tolist() == [[0, 0, 10, 9], [20, 0, 30, 10], [20, 0, 30, 10]]
    assert boxes.labels.tolist() == [0, 1, 0] and len(merged([here, there], sure, 0.45, 2)) == 2
    assert len(merged([here.at(torch.zeros(2, dtype=torch.bool))], sure[:0], 0.45, 10)) == 0


def test_what_may_be_cut_and_lies_in_another_box_of_its_class_is_a_part_of_it() -> None:
    """Legs near the border of a tile, in the box of the person: not a second person. A child elsewhere in it is one."""
    corners = torch.tensor([[0.0, 0, 40, 100], [2, 60, 30, 99], [5, 50, 30, 80], [2, 60, 30, 99], [60, 60, 90, 99]])
    boxes = Boxes(corners, torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]))
    doubtful = torch.tensor([False, True, False, True, True])
    left = merged([boxes], doubtful, 0.9, 10)
    assert left.scores is not None
    np.testing.assert_allclose(left.scores, [0.9, 0.7, 0.6, 0.5])


def test_tiles_that_make_no_sense() -> None:
    for wrong in ({"side": 63}, {"overlap": 0.05}, {"overlap": 0.6}, {"batch": 0}):
        with pytest.raises(ValueError):
            Tiles(**wrong)
    with pytest.raises((FieldError, ValueError), match="at least 8 pixels"):
        Tiles(side=64, overlap=0.1)
