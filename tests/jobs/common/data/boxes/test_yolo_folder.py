"""Boxes in the format of YOLO: both layouts, polygons, turned images, and files that are not as they have to be."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from jobs.common.data.boxes import DataParams
from service.errors import InputError

NAMES = "names: [person, dog]\n"


def laid(root: Path, settings: str = NAMES, lines: str = "1 .5 .5 .4 .2\n", images: str = "images/train") -> DataParams:
    (root / images).mkdir(parents=True)
    labels = root / images.replace("images", "labels")
    labels.mkdir(parents=True)
    Image.new("RGB", (200, 100)).save(root / images / "a.png")
    Image.new("RGB", (64, 64)).save(root / images / "b.jpg")
    (labels / "a.txt").write_text(lines)
    (root / "data.yaml").write_text(settings)
    return DataParams(name="yolo_folder", root=str(root), side=100)


@pytest.mark.parametrize("images", ["images/train", "train/images"])
def test_both_layouts(tmp_path: Path, images: str) -> None:
    data = laid(tmp_path, images=images).load("train")
    assert data.classes == ("person", "dog") and len(data) == 2
    assert data.boxes(0).labels.tolist() == [1] and len(data.boxes(1)) == 0
    assert data.boxes(0).corners[0].tolist() == pytest.approx([30, 45, 70, 55], abs=1e-4)
    assert data.images(torch.arange(2)).shape == (2, 3, 100, 100)


def test_where_data_yaml_says(tmp_path: Path) -> None:
    settings = "path: /nowhere\nnames: {0: person, 1: dog}\nval: some/images\n"
    data = laid(tmp_path, settings, images="some/images")
    assert data.load("test").boxes(0).labels.tolist() == [1]
    with pytest.raises(InputError, match="has no folder images/train"):
        data.load("train")


def test_polygons_and_boxes_that_are_left_out(tmp_path: Path) -> None:
    lines = "0 .1 .2 .5 .1 .3 .9\n0 .5 .5 0 .1\n1 1.5 .5 .2 .2\n0 nan .5 .1 .1\n\n1 .95 .5 .2 .2\n"
    data = laid(tmp_path, lines=lines).load("train")
    assert data.remarks == ("3 boxes without a size, or outside of their image, were left out",)
    expected = [[10, 30, 50, 70], [85, 45, 100, 55]]
    assert data.boxes(0).corners.flatten().tolist() == pytest.approx(sum(expected, []), abs=1e-3)


def test_a_turned_image(tmp_path: Path) -> None:
    """Its boxes are parts of what is seen: a high image, of a file that lies."""
    data = laid(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (200, 100)).save(tmp_path / "images/train/a.png", exif=exif)
    images = data.load("train")
    assert images.boxes(0).corners[0].tolist() == pytest.approx([40, 40, 60, 60], abs=1e-4)
    assert images.images(torch.tensor([0]))[0, 0, 50, 10] == pytest.approx(0.5, abs=0.01), "grey is beside it"


@pytest.mark.parametrize(
    ("settings", "lines", "problem"),
    [
        ("names: [", "", "is no YAML"),
        ("3", "", "must have names"),
        ("nc: 2", "", "names in data.yaml must be a list of 1 to 10,000 classes"),
        ("names: [a, a]", "", "must be texts, none twice"),
        ("names: [1, 2]", "", "must be texts, none twice"),
        ("names: {0: a, 2: b}", "", "must have the numbers from 0 on, without a gap"),
        ("names: !!python/object/apply:os.system [ls]", "", "is no YAML"),
        (f"{NAMES}train: ../images", "", "must be a folder below root with `images` in its path"),
        (f"{NAMES}train: /images", "", "must be a folder below root"),
        (f"{NAMES}train: [images]", "", "must be a folder below root"),
        (f"{NAMES}train: images/none", "", "there is no folder .* which data.yaml names"),
        (NAMES, "2 .5 .5 .1 .1", "line 1 of .* must begin with a class from 0 to 1; it begins with 2"),
        (NAMES, "0.5 .5 .5 .1 .1", "must begin with a class from 0 to 1; it begins with 0.5"),
        (NAMES, "nan .5 .5 .1 .1", "must begin with a class"),
        (NAMES, "0 .5 .5 .1 .1\n0 .5 .5 .1", "line 2 of .* must have a class and four numbers, or a polygon"),
        (NAMES, "0 .5 .5 .1 .1 .9", "must have a class and four numbers"),
        (NAMES, "person .5 .5 .1 .1", "line 1 of .* must be of numbers"),
        (NAMES, "0 .5 .5 .1 .1\n" * 10_001, "must have at most 10,000 lines; it has 10,001"),
    ],
    ids=range(18),
)
def test_files_that_are_refused(tmp_path: Path, settings: str, lines: str, problem: str) -> None:
    data = laid(tmp_path, settings, lines)
    with pytest.raises(InputError, match=problem) as refused:
        data.load("train")
    assert "\n" not in refused.value.message


def test_what_is_no_image_or_no_text(tmp_path: Path) -> None:
    data = laid(tmp_path)
    (tmp_path / "labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="a.txt' is no text"):
        data.load("train")
    (tmp_path / "labels/train/a.txt").write_bytes(b"0 .5 .5 .1 .1" + b" " * (5 << 20))
    with pytest.raises(InputError, match="must have at most 4,194,304 bytes"):
        data.load("train")
    (tmp_path / "images/train/a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="a.png' cannot be read"):
        data.load("train")
    with pytest.raises(InputError, match="yolo_folder needs root"):
        DataParams(name="yolo_folder").load("train")
    with pytest.raises(InputError, match="data.yaml' cannot be read: No such file"):
        DataParams(name="yolo_folder", root=str(tmp_path / "images")).load("train")
