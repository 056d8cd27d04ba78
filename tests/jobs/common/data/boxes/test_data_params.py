"""Sets of images with boxes by name, and the user's own by import path."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jobs.common.data.boxes import DataParams
from jobs.common.data.boxes.base import Source
from jobs.common.data.boxes.squares import Squares
from jobs.common.data.sets import Split
from jobs.common.detection.boxes import Boxes
from service.errors import FieldError, InputError

HERE = "tests.jobs.common.data.boxes.test_data_params"
PIXELS = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
BOX = Boxes(torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([0]))


def mine(split: Split, source: Source) -> Squares:
    return Squares("mine", ("stone",), PIXELS[:5] if split == "train" else PIXELS[:3], [BOX] * 5)


class Changed(Squares):
    """What a user may get wrong."""

    def __init__(self, **parts: Any) -> None:
        super().__init__("mine", ("stone",), PIXELS, [BOX] * 5)
        for name, value in parts.items():
            setattr(self, name, value)


WRONG: dict[str, Any] = {}


def wrong(split: Split, source: Source) -> Any:
    return Changed(**WRONG)


def test_a_set_of_ones_own() -> None:
    train, test = DataParams(name=f"{HERE}:mine", train_limit=2).load_splits()
    assert (len(train), len(test), train.side) == (2, 3, 32)
    assert train.boxes(0) == BOX
    with pytest.raises(FieldError, match="data.test_limit must be at most 3, the number of examples of mine to test"):
        DataParams(name=f"{HERE}:mine", test_limit=4).load("test")


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        ("images", lambda places: PIXELS[places], r"must be torch.float32 \(1, 3, 32, 32\); they are torch.uint8"),
        ("images", lambda places: PIXELS[places].float(), "must be of numbers from 0 to 1"),
        ("images", lambda places: PIXELS[places].float() * torch.nan, "must be of numbers from 0 to 1"),
        ("side", 64, r"must be torch.float32 \(1, 3, 64, 64\)"),
        ("boxes", lambda place: Boxes(BOX.corners, torch.tensor([1])), "labels of .* must be torch.int64 from 0 to 0"),
        ("boxes", lambda place: Boxes(BOX.corners, torch.tensor([0, 0])), r"must be torch.float32 \(2, 4\)"),
        ("boxes", lambda place: Boxes(BOX.corners.double(), BOX.labels), "they are torch.float64"),
    ],
    ids=range(7),
)
def test_a_set_of_ones_own_that_is_none(part: str, value: Any, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{HERE}.WRONG", {part: value})
    with pytest.raises(InputError, match=problem):
        DataParams(name=f"{HERE}:wrong").load("train")


def nothing(split: Split, source: Source) -> object:
    return object()


def test_what_is_no_set() -> None:
    with pytest.raises(
        InputError, match="lacks name, classes, side, boxed_by, remarks, digest, images, boxes, __len__"
    ):
        DataParams(name=f"{HERE}:nothing").load("train")


def test_scenes_have_the_side_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.common.data.boxes import scenes

    monkeypatch.setattr(scenes, "COUNTS", {"train": 3, "test": 2})
    scenes.scenes.cache_clear()
    train, test = DataParams().load_splits()
    assert (train.side, test.side, len(train), len(test)) == (96, 96, 3, 2)
    assert DataParams(side=48).load("test").side == 48
    scenes.scenes.cache_clear()


def test_names_that_are_not_there() -> None:
    with pytest.raises(ValidationError, match="did you mean 'pedestrians'"):
        DataParams(name="pedestrian")
