"""Classes of a data set by their names, and the images that are of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from service.errors import InputError, unknown

if TYPE_CHECKING:
    from jobs.common.data.images.base import ImageSet  # whose package asks for classes by name


def class_index(classes: Sequence[str], name: str) -> int:
    """The label of a class, by its name or, where no class has that name, its number. UnknownNameError names the
    nearest.
    """
    if name in classes:
        return classes.index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise unknown("class", name, classes)


def labels_of(names: Sequence[str], images: "ImageSet") -> tuple[int, ...]:
    """The labels of classes, ascending, each once. UnknownNameError names the nearest."""
    return tuple(sorted({class_index(images.classes, name) for name in names}))


def images_of(images: "ImageSet", labels: Sequence[int]) -> Tensor:
    """Which images are of these classes: int64 (n,). InputError if there are none."""
    rows = torch.isin(images.labels, torch.tensor(labels)).nonzero().flatten()
    if not len(rows):
        raise InputError(f"{images.name} has no image of {', '.join(images.classes[label] for label in labels)}")
    return rows
