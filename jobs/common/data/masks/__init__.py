"""Images with a class for every pixel, by name. Another set is another module here and another line in DATASETS."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field, model_validator

from jobs.common.data.masks.base import Part, SegmentationSet, Source
from jobs.common.data.masks.mask_files import as_labels
from jobs.common.data.sets import LimitParams, Split, check_parts, listed
from jobs.common.imports import name_of, resolve
from service.errors import FieldError, InputError

# import paths: torchvision, which some of them need, takes a second to load
DATASETS = {
    "satellite": "jobs.common.data.masks.satellite:satellite",
    "shapes": "jobs.common.data.masks.shapes:shapes",
    "composites": "jobs.common.data.masks.composites:composites",
    "voc2012": "jobs.common.data.masks.published:voc2012",
    "cityscapes": "jobs.common.data.masks.published:cityscapes",
    "mask_folder": "jobs.common.data.masks.folder:mask_folder",
}


class DataParams(Source, LimitParams):
    """The images that a network learns to segment."""

    name: Annotated[str, name_of(DATASETS, "data set")] = Field(
        "satellite",
        description="satellite (inside a package), shapes (made), composites (`make data`); voc2012, cityscapes, "
        "mask_folder (on disk); or an import path mypackage.module:build, called with split and source",
    )

    @model_validator(mode="after")
    def _names_its_own(self) -> "DataParams":
        if self.name in DATASETS and self.name != "mask_folder":
            for field in ("classes", "colours"):
                if given := getattr(self, field):
                    raise FieldError(field, f"be none for {self.name}, whose classes are its own", given)
        return self

    def load(self, split: Split) -> SegmentationSet:
        """The images of a split. InputError, one sentence, if they are not there, or fewer than the limit."""
        build: Callable[[Split, Source], SegmentationSet] = resolve(self.name, DATASETS, "data set")
        images = build(split, self)
        if ":" in self.name:
            _check(self.name, images)
        return self.limited(images, split, Part)

    def load_splits(self) -> tuple[SegmentationSet, SegmentationSet]:
        """The images to train and those to test. InputError as `load`, and if their classes differ."""
        train, test = self.load("train"), self.load("test")
        if tuple(test.classes) != tuple(train.classes):
            ours, others = listed(train.classes), listed(test.classes)
            raise InputError(f"classes of {train.name} to test must be those to train, {ours}; they are {others}")
        return train, test


def _check(name: str, images: SegmentationSet) -> None:
    """InputError if a set of the user's own is not as a SegmentationSet is."""
    check_parts(name, images, ("name", "classes", "palette", "in_memory", "digest", "pair", "__len__"))
    if len(images.palette) != len(images.classes):
        count = f"{len(images.classes)}, one for each class"
        raise InputError(f"the palette of {name!r} must have {count}; it has {len(images.palette)} colours")
    if not all(len(colour) == 3 and all(part in range(256) for part in colour) for colour in images.palette):
        raise InputError(f"colours of the palette of {name!r} must be three whole numbers from 0 to 255 each")
    image, labels = images.pair(0)
    height_width = tuple(image.shape[1:])
    if (image.dtype, image.ndim, image.shape[0]) != (torch.uint8, 3, 3):
        form = f"{image.dtype} {tuple(image.shape)}"
        raise InputError(f"images of {name!r} must be torch.uint8 (3, height, width); the first is {form}")
    if (labels.dtype, tuple(labels.shape)) != (torch.uint8, height_width):
        form = f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(f"labels of {name!r} must be torch.uint8 {height_width}; those of the first image are {form}")
    as_labels(labels.numpy(), len(images.classes), f"the first mask of {name!r}")
