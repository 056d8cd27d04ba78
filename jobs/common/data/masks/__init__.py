"""Images with a class for every pixel, by name. Another set is another module here and another line in DATASETS."""

from collections.abc import Callable

from pydantic import Field

from jobs.common.data.batches import permutation
from jobs.common.data.masks.base import Part, SegmentationSet, Source, Split
from jobs.common.imports import resolve
from service.errors import InputError

# import paths: torchvision, which some of them need, takes a second to load
DATASETS = {
    "satellite": "jobs.common.data.masks.satellite:satellite",
    "shapes": "jobs.common.data.masks.shapes:shapes",
    "composites": "jobs.common.data.masks.composites:composites",
    "voc2012": "jobs.common.data.masks.published:voc2012",
    "cityscapes": "jobs.common.data.masks.published:cityscapes",
    "mask_folder": "jobs.common.data.masks.folder:mask_folder",
}


class DataParams(Source):
    """The images that a network learns to segment."""

    name: str = Field(
        "satellite",
        description="satellite (inside a package), shapes (made), composites (`make data`); voc2012, cityscapes, "
        "mask_folder (on disk); or an import path mypackage.module:build, called with split and source",
    )
    train_limit: int | None = Field(None, ge=1, description="images to train with, of a shuffled set; none: all")
    test_limit: int | None = Field(None, ge=1, description="images to test with, of a shuffled set; none: all")

    def load(self, split: Split) -> SegmentationSet:
        """The images of a split. InputError, one sentence, if they are not there, or fewer than the limit."""
        build: Callable[[Split, Source], SegmentationSet] = resolve(self.name, DATASETS, "data set")
        images = build(split, self)
        if ":" in self.name:
            _check(self.name, images)
        limit = self.train_limit if split == "train" else self.test_limit
        if limit is None:
            return images
        if limit > len(images):
            raise InputError(f"{split}_limit: {limit} images asked, {self.name} has {len(images)}")
        return Part(images, permutation(len(images), 0)[:limit])


def _check(name: str, images: SegmentationSet) -> None:
    """InputError if a set of the user's own is not as a SegmentationSet is."""
    parts = ("name", "classes", "palette", "in_memory", "digest", "pair", "__len__")
    if lacking := [part for part in parts if not hasattr(images, part)]:
        raise InputError(f"data set {name!r} lacks {', '.join(lacking)}")
