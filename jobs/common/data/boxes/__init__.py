"""Images with boxes around what is seen, by name. Another set is another module here and another line in DATASETS."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field

from jobs.common.data.boxes.base import BoxSet, Part, Source
from jobs.common.data.sets import LimitParams, Split, check_parts, listed
from jobs.common.imports import name_of, resolve
from service.errors import InputError

# import paths: what reads some of them takes long to load
DATASETS = {
    "scenes": "jobs.common.data.boxes.scenes:generated",
    "photographs": "jobs.common.data.boxes.photographs:photographs",
    "pedestrians": "jobs.common.data.boxes.pedestrians:pedestrians",
    "close_pedestrians": "jobs.common.data.boxes.pedestrians:close_pedestrians",
    "people": "jobs.common.data.boxes.photographs:people",
    "coco_folder": "jobs.common.data.boxes.coco_folder:coco_folder",
    "yolo_folder": "jobs.common.data.boxes.yolo_folder:yolo_folder",
    "coco2017": "jobs.common.data.boxes.published:coco2017",
    "voc2007": "jobs.common.data.boxes.published:voc2007",
    "voc2012": "jobs.common.data.boxes.published:voc2012",
    "inria": "jobs.common.data.boxes.published:inria",
}


class DataParams(Source, LimitParams):
    """The images in which objects are to be found."""

    name: Annotated[str, name_of(DATASETS, "data set")] = Field(
        "scenes",
        description="scenes (made); photographs, pedestrians, close_pedestrians, people (`make data`); "
        "coco_folder, yolo_folder, coco2017, voc2007, voc2012, inria (on disk); or an import path "
        "mypackage.module:build, called with split and source",
    )

    def load(self, split: Split) -> BoxSet:
        """The images of a split. InputError, one sentence, if they are not there, or fewer than the limit."""
        build: Callable[[Split, Source], BoxSet] = resolve(self.name, DATASETS, "data set")
        images = build(split, self)
        if ":" in self.name:
            _check(self.name, images)
        return self.limited(images, split, Part)

    def load_splits(self) -> tuple[BoxSet, BoxSet]:
        """The images to train and those to test. InputError as `load`, and if their classes or sides differ."""
        train, test = self.load("train"), self.load("test")
        if tuple(test.classes) != tuple(train.classes):
            ours, others = listed(train.classes), listed(test.classes)
            raise InputError(f"classes of {train.name} to test must be those to train, {ours}; they are {others}")
        if test.side != train.side:
            raise InputError(
                f"images of {train.name} to test must have {train.side} pixels a side; they have {test.side}"
            )
        return train, test


def _check(name: str, images: BoxSet) -> None:
    """InputError if a set of the user's own is not as a BoxSet is."""
    parts = ("name", "classes", "side", "boxed_by", "remarks", "digest", "images", "boxes", "__len__")
    check_parts(name, images, parts)
    if len(images) == 0:
        raise InputError(f"{name!r} must have at least one image; it has none")
    batch = images.images(torch.tensor([0]))
    form = (1, 3, images.side, images.side)
    if batch.dtype != torch.float32 or tuple(batch.shape) != form:
        raise InputError(
            f"images of {name!r} must be torch.float32 {form}; they are {batch.dtype} {tuple(batch.shape)}"
        )
    if not (batch.isfinite().all() and batch.min() >= 0 and batch.max() <= 1):
        raise InputError(f"images of {name!r} must be of numbers from 0 to 1; those of the first are not")
    boxes = images.boxes(0)
    count = len(boxes.labels)
    if boxes.corners.dtype != torch.float32 or tuple(boxes.corners.shape) != (count, 4):
        found = f"{boxes.corners.dtype} {tuple(boxes.corners.shape)}"
        raise InputError(
            f"corners of {name!r} must be torch.float32 {(count, 4)}, one for each label; they are {found}"
        )
    if boxes.labels.dtype != torch.int64 or not all(
        0 <= label < len(images.classes) for label in boxes.labels.tolist()
    ):
        raise InputError(f"labels of {name!r} must be torch.int64 from 0 to {len(images.classes) - 1}")
