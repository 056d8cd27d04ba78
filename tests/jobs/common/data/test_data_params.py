"""Data sets by name: limits, sets of the user's own, what is said when a set is not there."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from jobs.common.data.images import DATASETS, DataParams
from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.packaged import packaged
from jobs.common.data.sets import Split
from service.errors import InputError


def test_a_limit_keeps_images_of_a_shuffled_set() -> None:
    whole = DataParams(name="digits").load("train")
    part = DataParams(name="digits", train_limit=200).load("train")
    assert len(part) == len(part.labels) == 200
    assert len(part.labels.bincount()) == 10
    assert (part.classes, part.shape, part.name) == (whole.classes, whole.shape, whole.name)
    rows = {image.numpy().tobytes(): int(label) for image, label in zip(_all(whole), whole.labels, strict=True)}
    for image, label in zip(_all(part), part.labels, strict=True):
        assert rows[image.numpy().tobytes()] == int(label), "images keep their labels"
    same = DataParams(name="digits", train_limit=200, test_limit=7)
    assert torch.equal(_all(same.load("train")), _all(part)) and len(same.load("test")) == 7
    other = DataParams(name="digits", train_limit=200, limit_seed=1).load("train")
    assert len({whole.digest, part.digest, other.digest}) == 3
    assert same.load("train").digest == part.digest


def _all(images: object) -> Tensor:
    return images.images(torch.arange(len(images)))  # type: ignore[attr-defined, arg-type]


def test_a_limit_over_the_size_of_the_set_is_refused() -> None:
    with pytest.raises(InputError, match="data.test_limit must be at most 500, the number of examples of digits"):
        DataParams(name="digits", test_limit=501).load("test")


@pytest.mark.parametrize("fields", [{"train_limit": 0}, {"image_size": 4}, {"split": "x"}, {"limit_seed": -1}])
def test_fields_out_of_bounds(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DataParams(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "image_folder", "imagenet"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_that_is_not_there(name: str, split: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        DataParams(name=name, root=str(tmp_path / "nowhere")).load(split)
    sentence = str(caught.value)
    assert name in sentence and "nowhere" in sentence and "\n" not in sentence
    assert not list(tmp_path.iterdir()), "nothing is made unasked"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"])
def test_a_download_without_a_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(InputError, match=f"{name} cannot be downloaded to"):
        DataParams(name=name, root=str(tmp_path), download=True).load("train")


def test_folders_need_a_root() -> None:
    with pytest.raises(InputError, match="imagenet needs root"):
        DataParams(name="imagenet").load("train")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown data set 'cifar_10' .did you mean 'cifar10'"):
        DataParams(name="cifar_10").load("train")


def test_a_missing_package_is_named() -> None:
    with pytest.raises(InputError, match=r"digits needs the package no-such-thing \(pip install no-such-thing\)"):
        packaged("no-such-thing", "no_such_thing", "x", "digits")
    with pytest.raises(InputError, match="the installed package torch does not hold moved.csv"):
        packaged("torch", "torch", "moved.csv", "digits")


def test_every_description_names_every_set() -> None:
    description = DataParams.model_fields["name"].description
    assert description is not None and all(name in description for name in DATASETS)


# ---- sets of the user's own -----------------------------------------------------------------------------------------


class Own:
    """A set that is right; each test spoils one thing."""

    name, classes, shape, digest = "own", ("a", "b"), (1, 2, 2), "0"

    def __init__(self, split: Split = "train", source: Source | None = None) -> None:
        self.labels = torch.tensor([0, 1, 1])
        self.pixels = torch.full((3, 1, 2, 2), 0.5)

    def __len__(self) -> int:
        return 3

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.pixels[indices]


class Negative(Own):
    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.pixels[indices] - 1


class OtherShape(Own):
    shape = (3, 2, 2)


class TooFewClasses(Own):
    classes = ("a",)  # type: ignore[assignment]


class FloatLabels(Own):
    def __init__(self, split: Split, source: Source) -> None:
        super().__init__()
        self.labels = torch.zeros(3)


def nothing(split: Split, source: Source) -> object:
    return object()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Negative", "must be from 0 to 1; they are from -0.5 to -0.5"),
        ("OtherShape", "must be torch.float32 (1, 3, 2, 2); the first is torch.float32 (1, 1, 2, 2)"),
        ("TooFewClasses", "must be from 0 to 0; they are from 0 to 1"),
        ("FloatLabels", "the labels are not one int64 for each of its 3 images"),
        ("nothing", "lacks name, classes, shape, labels, digest, images, __len__"),
    ],
)
def test_a_set_of_ones_own_is_checked(name: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "own_sets", __import__("types").SimpleNamespace(**globals()))
    assert len(DataParams(name="own_sets:Own", train_limit=2).load("train")) == 2
    with pytest.raises(InputError) as caught:
        DataParams(name=f"own_sets:{name}").load("train")
    assert sentence in str(caught.value)


def test_pixels_are_checked() -> None:
    pixels = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    with pytest.raises(InputError, match="labels of own must be from 0 to 1; they are from 0 to 2"):
        Pixels("own", ("a", "b"), pixels, torch.tensor([0, 2]))
    with pytest.raises(InputError, match="1 labels for pixels"):
        Pixels("own", ("a", "b"), pixels, torch.tensor([0]))
    one, other = (Pixels("own", ("a", "b"), pixels, torch.tensor(labels)) for labels in ([0, 1], [1, 1]))
    assert one.digest != other.digest
