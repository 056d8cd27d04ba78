"""What sets of all kinds of data have in common: two splits, a folder, limits, and parts of a set."""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field
from torch import Tensor

from jobs.common.data.batches import permutation
from jobs.common.params import StudyParams
from service.errors import FieldError, InputError

Split = Literal["train", "test"]
SHOWN = 5  # names in a sentence


class DataSet(Protocol):
    """Examples that are asked for by their place in the set."""

    name: str
    classes: tuple[str, ...]
    """names, by label"""

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str:
        """Tells the content from any other: for provenance."""


Whole = TypeVar("Whole", bound=DataSet)
Limited = TypeVar("Limited", bound=DataSet)


class Subset:
    """Some examples of a set. Its children say how an example is got."""

    def __init__(self, whole: Any, indices: Tensor) -> None:
        """indices: int64 (k,)."""
        self.whole, self.indices = whole, indices
        self.name: str = whole.name
        self.classes: tuple[str, ...] = whole.classes

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(self.whole.digest.encode())
        digest.update(self.indices.contiguous().numpy().data)
        return digest.hexdigest()


def default_folder() -> Path:
    """Where data on disk are: ASSAY_DATA, else `.data` below the current folder."""
    return Path(os.environ.get("ASSAY_DATA", ".data"))


class FolderParams(StudyParams):
    """Where a data set lies."""

    root: str | None = Field(None, description="folder of a set that lies on disk; none: ASSAY_DATA, else .data here")

    @property
    def folder(self) -> Path:
        return default_folder() if self.root is None else Path(self.root).expanduser()


class LimitParams(StudyParams):
    """How much of a data set is used."""

    train_limit: int | None = Field(None, ge=1, description="examples to train with, of a shuffled set; none: all")
    test_limit: int | None = Field(None, ge=1, description="examples to test with, of a shuffled set; none: all")
    limit_seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the shuffle that decides which examples a limit keeps"
    )

    def limited(self, whole: Whole, split: Split, part: Callable[[Whole, Tensor], Limited]) -> Whole | Limited:
        """A split within its limit. part: makes a part of a set. FieldError if the set has fewer examples."""
        limit = self.train_limit if split == "train" else self.test_limit
        if limit is None:
            return whole
        if limit > len(whole):
            requirement = f"be at most {len(whole)}, the number of examples of {whole.name} to {split}"
            raise FieldError(f"data.{split}_limit", requirement, limit)
        return part(whole, permutation(len(whole), self.limit_seed)[:limit])


def check_parts(name: str, data: object, parts: tuple[str, ...]) -> None:
    """InputError if a set of the user's own lacks something that a set of its kind has."""
    if missing := [part for part in parts if not hasattr(data, part)]:
        raise InputError(f"data set {name!r} lacks {', '.join(missing)}")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
