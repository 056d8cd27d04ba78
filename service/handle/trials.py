"""A trial that has ended, as `summarize` sees it."""

import io
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel

from service.errors import StoreError, first_line
from service.execution import layout
from service.execution.records import TrialStatus
from service.handle.rows import Row, read_rows
from service.store import Folder


class Trial:
    """A trial that has ended, as `summarize` sees it."""

    def __init__(
        self,
        folder: Folder,
        *,
        id: str,
        label: str,
        variant: str | None,
        seed: int,
        overrides: dict[str, Any],
        params: BaseModel,
        status: TrialStatus,
        metrics: dict[str, float],
        best: bool,
    ) -> None:
        self._folder = folder
        self.id, self.label, self.variant, self.seed = id, label, variant, seed
        self.overrides = overrides
        self.params: Any = params  # an instance of the job's own Params
        self.status = status
        self.metrics = metrics  # the value last logged of each metric
        self.best = best  # of its variant, by the metric of the sweep

    @property
    def has_results(self) -> bool:
        """Whether `run` came to its end: of a partial trial a few cells, and what is made of them, may be missing."""
        return self.status in ("finished", "partial")

    @cached_property
    def history(self) -> list[Row]:
        """All rows that the trial logged; a metric that a row lacks is absent from it."""
        return read_rows(self._folder)

    def table(self, name: str) -> list[dict[str, Any]]:
        """A table that the trial wrote; [] if it did not."""
        path = layout.TABLE.format(name)
        return self._folder.read_rows(path) if self._folder.exists(path) else []

    def array(self, name: str) -> np.ndarray:
        """An array that the trial wrote. StoreError if it is damaged."""
        path = layout.ARRAY.format(name)
        try:
            array: np.ndarray = np.load(io.BytesIO(self._folder.read(path)), allow_pickle=False)
        except (ValueError, EOFError, MemoryError) as error:
            raise StoreError(f"{self._folder.uri_of(path)} is damaged: {first_line(error)}") from error
        return array
