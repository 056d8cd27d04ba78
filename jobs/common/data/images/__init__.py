"""Labelled images that the studies use, by name. Another set is another module here and another line in DATASETS."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field

from jobs.common.data.classes import class_index, images_of, labels_of
from jobs.common.data.images.base import ImageSet, Part, Source
from jobs.common.data.images.relabelled import with_classes
from jobs.common.data.sets import LimitParams, Split, check_parts
from jobs.common.imports import name_of, resolve
from jobs.common.params import ONCE
from service.errors import FieldError, InputError

# import paths: torchvision, which some of them need, takes a second to load
DATASETS = {
    "digits": "jobs.common.data.images.digits:digits",
    "digits_16": "jobs.common.data.images.digits:digits_16",
    "mnist_5k": "jobs.common.data.images.digits:mnist_5k",
    "half_cubes": "jobs.common.data.images.half_cubes:half_cubes",
    "photo_patches": "jobs.common.data.images.photo_patches:photo_patches",
    "spirals": "jobs.common.data.images.plane_points:spirals",
    "swiss_roll": "jobs.common.data.images.plane_points:swiss_roll",
    "circles": "jobs.common.data.images.plane_points:circles",
    "circles_gap": "jobs.common.data.images.plane_points:circles_gap",
    "mnist": "jobs.common.data.images.idx:mnist",
    "fashion_mnist": "jobs.common.data.images.idx:fashion_mnist",
    "cifar10": "jobs.common.data.images.cifar:cifar10",
    "cifar100": "jobs.common.data.images.cifar:cifar100",
    "svhn": "jobs.common.data.images.svhn:svhn",
    "svhn_extra": "jobs.common.data.images.svhn:svhn_extra",
    "image_folder": "jobs.common.data.images.folder:image_folder",
    "imagenet": "jobs.common.data.images.folder:imagenet",
}


class DataParams(Source, LimitParams):
    """The images that a network learns to classify."""

    name: Annotated[str, name_of(DATASETS, "data set")] = Field(
        "digits",
        description="digits, digits_16, mnist_5k, photo_patches (inside packages); half_cubes (drawn at random); "
        "spirals, swiss_roll, circles, circles_gap (points of the plane); fashion_mnist, mnist, cifar10, cifar100, "
        "svhn, svhn_extra, image_folder, imagenet (on disk); or an import path mypackage.module:build, called with "
        "split and source",
    )
    classes: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="classes whose images are kept, in the order of their labels from here on; none: all"
    )

    def load(self, split: Split) -> ImageSet:
        """The images of a split. InputError, one sentence, if they are not there, damaged, or fewer than the limit."""
        build: Callable[[Split, Source], ImageSet] = resolve(self.name, DATASETS, "data set")
        images = build(split, self)
        if ":" in self.name:
            _check(self.name, images)
        return self.limited(self._of_classes(images), split, Part)

    def _of_classes(self, images: ImageSet) -> ImageSet:
        """The images of the classes that are kept. UnknownNameError names the nearest; FieldError: there is but one."""
        if not self.classes:
            return images
        if len(self.classes) == 1:
            raise FieldError("data.classes", "be two classes or more", list(self.classes))
        names = [images.classes[class_index(images.classes, name)] for name in self.classes]
        some = Part(images, images_of(images, labels_of(names, images)))
        return with_classes(some, names, self.name, "data.classes")

    def load_splits(self) -> tuple[ImageSet, ImageSet]:
        """The images to train and those to test, with the classes of the former.

        InputError as `load`, and if an image to test is of another class or shape.
        """
        train, test = self.load("train"), self.load("test")
        if test.shape != train.shape:
            raise InputError(
                f"images of {train.name} to test must be {train.shape}, as those to train; they are {test.shape}"
            )
        return train, with_classes(test, train.classes, f"{train.name} to test", f"{train.name} to train")


def _check(name: str, images: ImageSet) -> None:
    """InputError if a set of the user's own is not as an ImageSet is."""
    check_parts(name, images, ("name", "classes", "shape", "labels", "digest", "images", "__len__"))
    labels, count = images.labels, len(images)
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.shape != (count,) or not count:
        raise InputError(f"data set {name!r}: the labels are not one int64 for each of its {count} images")
    if int(labels.min()) < 0 or int(labels.max()) >= len(images.classes):
        bounds = f"from {int(labels.min())} to {int(labels.max())}"
        raise InputError(f"labels of {name!r} must be from 0 to {len(images.classes) - 1}; they are {bounds}")
    first = images.images(torch.arange(1))
    if first.dtype != torch.float32 or first.shape != (1, *images.shape):
        form = f"{first.dtype} {tuple(first.shape)}"
        raise InputError(f"images of {name!r} must be torch.float32 {(1, *images.shape)}; the first is {form}")
    if not 0 <= float(first.min()) <= float(first.max()) <= 1:
        raise InputError(f"pixels of {name!r} must be from 0 to 1; they are from {first.min():g} to {first.max():g}")
