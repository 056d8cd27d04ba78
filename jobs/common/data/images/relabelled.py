"""Labels by the names of the classes: a set that numbers them in another way is read as a network numbers them."""

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.common.data.images.base import ImageSet, resize_of
from jobs.common.data.sets import listed
from service.errors import InputError


class Relabelled:
    """A set under the labels of other classes, which name all that its images are of."""

    def __init__(self, whole: ImageSet, classes: Sequence[str]) -> None:
        self.whole, self.name, self.shape = whole, whole.name, whole.shape
        self.classes, self.resize = tuple(classes), resize_of(whole)
        labels = [self.classes.index(name) if name in self.classes else -1 for name in whole.classes]
        self.labels = torch.tensor(labels, device=whole.labels.device)[whole.labels]

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.whole.digest, self.classes]).encode()).hexdigest()

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.whole.images(indices, generator)


def with_classes(images: ImageSet, classes: Sequence[str], what: str, whose: str) -> ImageSet:
    """A set whose labels are the places of its classes in `classes`; the set itself if they are already.

    what: the set, whose: the owner of `classes`, both for the sentence of the InputError if an image is of a class that
    is not among them. A class without an image may lack.
    """
    if tuple(images.classes) == tuple(classes):
        return images
    present = set(images.labels.tolist())
    if unknown := [name for label, name in enumerate(images.classes) if label in present and name not in classes]:
        raise InputError(
            f"classes of {what} must be among those of {whose}, {listed(classes)}; it also has {listed(unknown)}"
        )
    return Relabelled(images, classes)
