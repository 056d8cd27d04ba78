"""Generated scenes: what is in them, that boxes hold what was drawn, and that a number always gives the same scene."""

import pickle
from importlib import import_module

import numpy as np
import pytest
import torch

from jobs.common.data.boxes.base import Part
from jobs.common.data.boxes.scenes import CLASSES, Scenes, scene, scenes
from jobs.common.detection.boxes import overlaps
from service.errors import FieldError

module = import_module("jobs.common.data.boxes.scenes")


def test_scenes_hold_one_to_three_persons_within_the_image() -> None:
    made = scenes("train", 96, 60)
    images = made.images(torch.arange(60))
    assert images.shape == (60, 3, 96, 96) and images.dtype == torch.float32
    assert float(images.min()) >= 0 and float(images.max()) <= 1 and float(images.std()) > 0.1
    persons = [len(made.boxes(place).of(0)) for place in range(60)]
    assert set(persons) == {1, 2, 3} and any(len(made.boxes(place).of(1)) for place in range(60))
    for place in range(60):
        corners = made.boxes(place).corners
        heights = corners[:, 3] - corners[:, 1]
        assert float(corners.min()) >= 0 and float(corners.max()) <= 96
        assert float(heights.min()) >= 34 and float(heights.max()) <= 72.1
        apart = overlaps(corners, corners) - torch.eye(len(corners))
        assert float(apart.max()) <= module.COMMON + 1e-6


def test_a_box_is_as_large_as_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the pixels that differ from those of the same scene without the figure."""
    nothing = lambda *_: None  # noqa: E731
    for number in range(8):
        stream = np.random.default_rng(number)
        for name in ("_person", "_tree"):
            canvas = module.Image.new("RGB", (96 * 2, 96 * 2), (1, 2, 3))
            getattr(module, name)(module.ImageDraw.Draw(canvas), stream, 20.0, 10.0, 24.0, 60.0)
            rows, columns = np.nonzero((np.asarray(canvas) != (1, 2, 3)).any(2))
            ends = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2
            assert np.abs(ends - (20, 10, 44, 70)).max() <= 1.5, (name, ends)
    monkeypatch.setattr(module, "_person", nothing)
    empty, boxes = scene("test", 0, 96)
    monkeypatch.undo()
    full, _ = scene("test", 0, 96)
    changed = torch.from_numpy((empty != full).any(2))
    left, top, right, bottom = boxes.of(0).corners[0].round().int().tolist()
    assert changed[top:bottom, left:right].float().mean() > 0.3


def test_a_scene_depends_on_split_and_number_alone() -> None:
    few, many = Scenes("test", 64, 3), Scenes("test", 64, 5)
    assert torch.equal(few.images(torch.arange(3)), many.images(torch.arange(3)))
    assert few.digest == Scenes("test", 64, 3).digest and few.digest != many.digest
    assert not torch.equal(few.images(torch.tensor([0])), Scenes("train", 64, 3).images(torch.tensor([0])))
    part = Part(many, torch.tensor([4, 1]))
    assert torch.equal(part.images(torch.tensor([1])), many.images(torch.tensor([1])))
    assert part.boxes(0).corners.tolist() == many.boxes(4).corners.tolist() and part.classes == CLASSES
    assert scenes("test", 64, 3) is scenes("test", 64, 3)
    again = pickle.loads(pickle.dumps(many))
    assert len(pickle.dumps(many)) < 1000 and torch.equal(again.images(torch.arange(5)), many.images(torch.arange(5)))
    with pytest.raises(IndexError):
        many.boxes(5)


def test_scenes_too_small_for_persons_are_refused() -> None:
    with pytest.raises(FieldError, match="side must be at least 32"):
        Scenes("train", 16, 1)
