"""Boxes in the format of COCO: both layouts, what is left out, and json that is not as it has to be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.common.data.boxes import DataParams, coco_folder
from service.errors import InputError

LISTS: dict[str, list[dict[str, Any]]] = {
    "images": [
        {"id": 7, "file_name": "b.png", "height": 60, "width": 100},
        {"id": 3, "file_name": "deep/a.png", "height": 64, "width": 64},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [30, 10, 40, 40]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [90.5, 50, 40, 40], "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 60], "iscrowd": 1},
        {"id": 4, "image_id": 3, "category_id": 1, "bbox": [5, 5, 0, 10]},
        {"id": 5, "image_id": 3, "category_id": 1, "bbox": [200, 5, 20, 10]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
}


def images(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[10:50, 30:70] = 255
    Image.fromarray(pixels).save(folder / "b.png")
    Image.new("RGB", (64, 64)).save(folder / "deep/a.png")


def laid(root: Path, lists: Any = LISTS, split: str = "val2017") -> DataParams:
    """As COCO itself has it."""
    images(root / split)
    (root / "annotations").mkdir()
    content = lists if isinstance(lists, bytes) else json.dumps(lists).encode()
    (root / f"annotations/instances_{split}.json").write_bytes(content)
    return DataParams(name="coco_folder", root=str(root), side=100)


def changed(kind: str, place: int, **fields: Any) -> dict[str, Any]:
    """The lists, but for one entry."""
    entry = {**LISTS[kind][place], **fields}
    return {**LISTS, kind: [*LISTS[kind][:place], entry, *LISTS[kind][place + 1 :]]}


def test_boxes_lie_on_their_images(tmp_path: Path) -> None:
    data = laid(tmp_path).load("test")
    assert data.classes == ("person", "dog") and len(data) == 2 and data.boxed_by is None
    pixels = data.images(torch.arange(2))
    assert pixels[0, 0, 30:70, 30:70].min() == 1, "20 rows of grey are above"
    assert data.boxes(0).corners.tolist() == [[30, 30, 70, 70], [90.5, 70, 100, 80]]
    assert data.boxes(0).labels.tolist() == [1, 0] and len(data.boxes(1)) == 0
    assert data.remarks == (
        "2 boxes without a size, or outside of their image, were left out",
        "1 boxes of crowds were left out",
    )


def test_the_layout_that_tools_export(tmp_path: Path) -> None:
    images(tmp_path / "train")
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps(LISTS))
    data = DataParams(name="coco_folder", root=str(tmp_path)).load("train")
    assert len(data) == 2 and data.side == 416
    assert (
        DataParams(name="coco_folder", root=str(tmp_path), containing="person").load("train").boxes(0).labels.tolist()
    )
    with pytest.raises(InputError, match="nor one json in a folder val or valid or test"):
        DataParams(name="coco_folder", root=str(tmp_path)).load("test")


def test_ids_may_be_texts(tmp_path: Path) -> None:
    lists = json.loads(json.dumps(LISTS))
    for image in lists["images"]:
        image["id"] = str(image["id"])
    for box in lists["annotations"]:
        box["image_id"] = str(box["image_id"])
    assert len(laid(tmp_path, lists).load("test").boxes(0)) == 2


@pytest.mark.parametrize(
    ("lists", "problem"),
    [
        (b"", "is no json"),
        (b"\xff\xfe{", "is no json"),
        (b"[" * 100_000, "is no json"),
        (b'{"images": ' + b"9" * 5000 + b"}", "is no json"),
        (b"[]", "must have the lists images, annotations, categories"),
        ({**LISTS, "annotations": {}}, "must have the lists"),
        ({**LISTS, "images": [3]}, "image 0 of .* must be an object with fields; it is int"),
        ({**LISTS, "categories": []}, "must have 1 to 10,000 categories; it has 0"),
        (changed("categories", 0, id=1), "must have ids and names of their own"),
        (changed("categories", 0, name="person"), "must have ids and names of their own"),
        (changed("categories", 0, name=None), "category 0 of .* must have a name"),
        (changed("images", 0, id=3), "images of .* must have ids of their own"),
        (changed("images", 0, id=None), "image 0 of .* must have an id"),
        (changed("images", 0, file_name="../b.png"), "must have a file_name below the folder"),
        (changed("images", 0, file_name="/etc/hostname"), "must have a file_name below the folder"),
        (changed("images", 0, file_name="..\\b.png"), "must have a file_name below the folder"),
        (changed("images", 0, file_name="b\0.png"), "must have a file_name below the folder"),
        (changed("images", 0, file_name="c.png"), "image 0 of .* is not there"),
        (changed("images", 0, height=0), "must have a height and a width of 1 to 100,000; they are 0 and 100"),
        (changed("images", 0, width=1e9), "must have a height and a width"),
        (changed("images", 0, width=True), "must have a height and a width"),
        (changed("annotations", 0, image_id=8), "annotation 0 of .* must name an image and a category that are listed"),
        (changed("annotations", 0, category_id=8), "must name an image and a category"),
        (changed("annotations", 0, bbox=[1, 2, 3]), "must have a bbox of four numbers"),
        (changed("annotations", 0, bbox=[1, 2, 3, "4"]), "must have a bbox of four numbers"),
        (changed("annotations", 0, bbox=None), "must have a bbox of four numbers; it is None"),
        (changed("annotations", 0, bbox=[1, 2, 3, 10**400]), "numbers that are too large"),
    ],
    ids=range(27),
)
def test_json_that_is_refused(tmp_path: Path, lists: Any, problem: str) -> None:
    data = laid(tmp_path, lists)
    with pytest.raises(InputError, match=problem) as refused:
        data.load("test")
    assert "\n" not in refused.value.message


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    content = json.dumps(changed("annotations", 0, bbox=[1, 2, 3, float("nan")])).encode()
    assert laid(tmp_path, content).load("test").remarks[0].startswith("3 boxes")


def test_an_image_of_another_size(tmp_path: Path) -> None:
    data = laid(tmp_path, changed("images", 0, width=200)).load("test")
    with pytest.raises(InputError, match="b.png' is 100x60, but its boxes are for one of 200x60"):
        data.images(torch.tensor([0]))


def test_folders_that_do_not_say_what_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="coco_folder needs root"):
        DataParams(name="coco_folder").load("train")
    data = laid(tmp_path)
    (tmp_path / "annotations/instances_val2014.json").write_text("{}")
    with pytest.raises(InputError, match=r"must have one annotations/instances_val\*.json; it has more"):
        data.load("test")
    (tmp_path / "annotations/instances_val2014.json").unlink()
    monkeypatch.setattr(coco_folder, "MOST_TEXT", 10)
    with pytest.raises(InputError, match="must have at most 10 bytes"):
        data.load("test")
