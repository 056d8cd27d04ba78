"""COCO, VOC and INRIA as they are unpacked, small; VOC as torchvision reads it; and files that are not as they are."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from jobs.common.data.boxes import DataParams
from service.errors import InputError
from tests.jobs.common.data.boxes.test_coco_folder import laid as laid_coco

OBJECT = (
    "<object><name>{}</name><difficult>1</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}"
    "</ymax></bndbox></object>"
)
VOC = (
    "<annotation><filename>000001.jpg</filename><size><width>100</width><height>60</height><depth>3</depth></size>"
    f"{OBJECT.format('person', 31, 11, 70, 50)}{OBJECT.format('dog', 90, 50, 120, 90)}"
    f"{OBJECT.format('cat', 9, 9, 5, 5)}"
    "</annotation>"
)
INRIA = (
    "# PASCAL Annotation Version 1.00\n\n"
    'Image filename : "Test/pos/crop_000001.png"\n'
    "Image size (X x Y x C) : 100 x 60 x 3\n"
    'Database : "The INRIA Rh\xf4ne-Alpes Annotated Person Database"\n'
    'Objects with ground truth : 2 { "PASperson" "PASperson" }\n'
    'Bounding box for object 1 "PASperson" (Xmin, Ymin) - (Xmax, Ymax) : (30, 10) - (70, 50)\n'
    'Bounding box for object 2 "PASperson" (Xmin, Ymin) - (Xmax, Ymax) : (80, -5) - (110, 50)\n'
)


def voc(root: Path, text: str = VOC, year: int = 2007, listed: str = "test") -> DataParams:
    folder = root / f"VOCdevkit/VOC{year}"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    (folder / "Annotations/000001.xml").write_text(text)
    Image.new("RGB", (100, 60)).save(folder / "JPEGImages/000001.jpg")
    (folder / f"ImageSets/Main/{listed}.txt").write_text("000001\n")
    return DataParams(name=f"voc{year}", root=str(root), side=100)


def persons(root: Path, text: str = INRIA) -> DataParams:
    for name in ("annotations", "pos"):
        (root / "INRIAPerson/Test" / name).mkdir(parents=True)
    (root / "INRIAPerson/Test/annotations/crop_000001.txt").write_text(text, encoding="latin-1")
    Image.new("RGB", (100, 60)).save(root / "INRIAPerson/Test/pos/crop_000001.png")
    return DataParams(name="inria", root=str(root), side=100)


@pytest.mark.parametrize(
    ("year", "split", "listed"), [(2007, "test", "test"), (2012, "test", "val"), (2007, "train", "trainval")]
)
def test_voc(tmp_path: Path, year: int, split: str, listed: str) -> None:
    """Pixels are counted from 1 there, and the last is inside; the square begins 20 rows above the image."""
    data = voc(tmp_path, VOC, year, listed).load(split)
    assert data.boxes(0).corners.tolist() == [[30, 30, 70, 70], [89, 69, 100, 80]]
    assert [data.classes[label] for label in data.boxes(0).labels.tolist()] == ["person", "dog"]
    assert data.remarks == ("1 boxes without a size, or outside of their image, were left out",)
    assert data.images(torch.tensor([0])).shape == (1, 3, 100, 100)


def test_voc_has_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import VOCDetection

    data = voc(tmp_path).load("test")
    _, target = VOCDetection(str(tmp_path), "2007", "test")[0]
    names = [each["name"] for each in target["annotation"]["object"]][:2]
    assert names == [data.classes[label] for label in data.boxes(0).labels.tolist()]
    box = {name: int(side) for name, side in target["annotation"]["object"][0]["bndbox"].items()}
    assert data.boxes(0).corners[0].tolist() == [box["xmin"] - 1, box["ymin"] - 1 + 20, box["xmax"], box["ymax"] + 20]


def test_inria(tmp_path: Path) -> None:
    data = persons(tmp_path).load("test")
    assert data.boxes(0).corners.tolist() == [[30, 30, 70, 70], [80, 20, 100, 70]] and data.classes == ("person",)


def test_coco(tmp_path: Path) -> None:
    laid_coco(tmp_path)
    data = DataParams(name="coco2017", root=str(tmp_path)).load("test")
    assert len(data) == 2 and data.name == "coco2017"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no annotation of VOC"),
        ("<annotation>", "is no annotation of VOC"),
        (VOC.replace("<width>100", "<width>many"), "is no annotation of VOC"),
        (VOC.replace("<width>100", "<width>0"), "a side must have 1 to 100,000 pixels; it has 0"),
        (VOC.replace("person", "ghost"), "is no annotation of VOC"),
        (VOC.replace("<xmin>31</xmin>", ""), "is no annotation of VOC"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]>' + VOC, "must have no declarations of XML"),
        (VOC + " " * (2 << 20), "must have at most 1,048,576 bytes"),
    ],
    ids=range(8),
)
def test_annotations_of_voc_that_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    data = voc(tmp_path, text)
    with pytest.raises(InputError, match=problem):
        data.load("test")


@pytest.mark.parametrize(
    ("before", "after"),
    [("Test/pos", "../Test/pos"), ("Image filename", "Name"), ("100 x 60 x 3", "large"), ("100 x 60", "0 x 60")],
)
def test_annotations_of_inria_that_are_refused(tmp_path: Path, before: str, after: str) -> None:
    data = persons(tmp_path, INRIA.replace(before, after))
    with pytest.raises(InputError, match="is no annotation of INRIA"):
        data.load("test")


def test_lists_and_images_that_are_refused(tmp_path: Path) -> None:
    data = voc(tmp_path)
    listed = tmp_path / "VOCdevkit/VOC2007/ImageSets/Main/test.txt"
    listed.write_text("../../secret\n")
    with pytest.raises(InputError, match=r"must list names of images; one is '../../secret'"):
        data.load("test")
    listed.write_text("000002\n")
    with pytest.raises(InputError, match="000002.xml' cannot be read: No such file"):
        data.load("test")
    listed.write_text("000001\n")
    (tmp_path / "VOCdevkit/VOC2007/JPEGImages/000001.jpg").unlink()
    with pytest.raises(InputError, match="there is no image .*000001.jpg"):
        data.load("test")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("coco2017", r"does not hold annotations/instances_val2017.json and val2017 \(it is had from cocodataset.org"),
        ("voc2007", r"does not hold VOCdevkit/VOC2007 with test.txt \(it is had from the PASCAL VOC challenges"),
        ("voc2012", "does not hold VOCdevkit/VOC2012 with val.txt"),
        ("inria", "does not hold INRIAPerson/Test/annotations"),
    ],
)
def test_sets_that_are_not_there(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        DataParams(name=name, root=str(tmp_path)).load("test")
