"""Classes by their names: splits that number them each by itself, sets of others, and what nobody is to see."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from jobs.common.data.images import DataParams
from jobs.common.data.images.base import Part, Pixels
from jobs.common.data.images.relabelled import Relabelled, with_classes
from jobs.common.data.masks import DataParams as MaskParams
from jobs.common.data.residence import resident
from service.errors import InputError

COLOURS = {"apple": (200, 20, 20), "banana": (220, 220, 20), "cherry": (120, 0, 40), "durian": (20, 200, 20)}

OWN = """
import torch
from jobs.common.data.images.base import Pixels
from jobs.common.data.masks.base import Pairs

NAMES = {"train": ("apple", "banana", "cherry"), "test": ("cherry", "apple")}

def fruit(split, source):
    names = NAMES[split]
    pixels = torch.tensor([90 * "abc".index(name[0]) for name in names], dtype=torch.uint8)
    return Pixels("fruit", names, pixels.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), torch.arange(len(names)))

def more(split, source):
    images = fruit("train", source)
    return images if split == "train" else Pixels("more", ("fig", *images.classes[1:]), images._pixels, images.labels)

def masks(split, source):
    pixels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    return Pairs("fields", ("sky", "sea")[:: 1 if split == "train" else -1], ((0, 0, 0),) * 2, pixels, pixels[:, 0])
"""


def pets(classes: tuple[str, ...], labels: list[int]) -> Pixels:
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Pixels("pets", classes, pixels, torch.tensor(labels))


def test_labels_follow_the_names() -> None:
    images = pets(("cat", "dog", "eel"), [2, 0, 2])  # no dog
    assert with_classes(images, images.classes, "pets", "x") is images
    renamed = with_classes(images, ("eel", "ant", "cat"), "pets", "model 'x/1'")
    assert renamed.labels.tolist() == [0, 2, 0] and renamed.classes == ("eel", "ant", "cat") and len(renamed) == 3
    assert torch.equal(renamed.images(torch.tensor([2, 0])), images.images(torch.tensor([2, 0])))
    assert renamed.digest not in (images.digest, with_classes(images, ("cat", "ant", "eel"), "pets", "x").digest)
    kept = resident(Part(renamed, torch.tensor([1, 2])), torch.device("cpu"))
    assert isinstance(kept.whole, Relabelled) and kept.labels.tolist() == [2, 0]
    with pytest.raises(InputError, match="of pets must be among those of model 'x/1', cat, dog; it also has eel"):
        with_classes(images, ("cat", "dog"), "pets", "model 'x/1'")


def folders(root: Path, **splits: str) -> str:
    """Two images of each class of each split. splits: names with spaces."""
    for split, names in splits.items():
        for name in names.split():
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (16, 16), COLOURS[name]).save(root / split / name / f"{number}.png")
    return str(root)


def test_a_test_folder_without_a_class_of_the_training_folder(tmp_path: Path) -> None:
    data = DataParams(name="image_folder", root=folders(tmp_path, train="apple banana cherry", val="apple cherry"))
    train, test = data.load_splits()
    assert train.classes == test.classes == ("apple", "banana", "cherry")
    assert test.labels.tolist() == data.load("test").labels.tolist() == [0, 0, 2, 2]


def test_a_test_folder_with_another_class(tmp_path: Path) -> None:
    data = DataParams(name="image_folder", root=folders(tmp_path, train="apple cherry", test="apple durian"))
    with pytest.raises(InputError, match="test' must be among those of '.*train', apple, cherry; it also has durian"):
        data.load("test")


def test_without_a_training_folder_the_classes_are_those_of_the_split(tmp_path: Path) -> None:
    data = DataParams(name="image_folder", root=folders(tmp_path, val="banana durian"))
    assert data.load("test").classes == ("banana", "durian")


def test_what_is_hidden_is_no_class_and_no_image(tmp_path: Path) -> None:
    root = folders(tmp_path, train="apple cherry")
    for folder in (".ipynb_checkpoints", "__MACOSX", "apple/.ipynb_checkpoints", "apple/@eaDir"):
        (tmp_path / "train" / folder).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / "train" / folder / "0-checkpoint.png")
    (tmp_path / "train/apple/._0.png").write_bytes(b"resource fork")
    train = DataParams(name="image_folder", root=root, image_size=8).load("train")
    assert train.classes == ("apple", "cherry") and train.labels.tolist() == [0, 0, 1, 1]
    assert train.images(torch.arange(4)).shape == (4, 3, 8, 8)


def test_masks_without_what_is_hidden_and_with_one_name_twice(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "train" / part).mkdir(parents=True)
        Image.new("L", (16, 16), 1).save(tmp_path / "train" / part / "a.png")
        for name in ("._a.png", "Thumbs.db"):
            (tmp_path / "train" / part / name).write_bytes(b"")
    data = MaskParams(name="mask_folder", root=str(tmp_path), classes=("sky", "sea"))
    assert len(data.load("train")) == 1
    Image.new("RGB", (16, 16)).save(tmp_path / "train/images/a.jpg")
    with pytest.raises(InputError, match="images' has two files of the name of 'a.jpg'"):
        data.load("train")


@pytest.mark.usefixtures("own_package")
def test_splits_of_ones_own_that_number_classes_each_by_itself() -> None:
    train, test = DataParams(name="mypackage.module:fruit").load_splits()
    assert test.classes == train.classes and test.labels.tolist() == [2, 0]
    with pytest.raises(InputError, match="classes of fruit to test must be among those of fruit to train.*; .*has fig"):
        DataParams(name="mypackage.module:more").load_splits()
    with pytest.raises(InputError, match="of fields to test must be those to train, sky, sea; they are sea, sky"):
        MaskParams(name="mypackage.module:masks").load_splits()
