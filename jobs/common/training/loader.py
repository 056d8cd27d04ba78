"""The way of batches from a training set to the device that learns from them."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from jobs.common.training.engine import Batch, Engine


class Batches(Protocol):
    """A training set in batches."""

    def batch(self, index: int) -> Batch:
        """Batch number `index`, counted from 0: tensors on the CPU or on the device. Asked for in order."""


class Loader:
    """Batches on the device. For a GPU the next one is made and sent while it still learns from this one."""

    def __init__(self, data: Batches, engine: Engine, end: int, ahead: bool | None = None) -> None:
        """end: the number after that of the last batch. ahead: make the next one meanwhile; None: for a GPU alone."""
        self._data, self._engine, self._end = data, engine, end
        self._ahead = engine.device.type != "cpu" if ahead is None else ahead
        self._next: Future[Batch] | None = None
        self._thread = ThreadPoolExecutor(1)

    def batch(self, index: int) -> Batch:
        """Batch number `index`, one after another."""
        if not self._ahead:
            return self._make(index)
        batch = self._make(index) if self._next is None else self._next.result()
        self._next = self._thread.submit(self._make, index + 1) if index + 1 < self._end else None
        return batch

    def close(self) -> None:
        """Make no more."""
        self._thread.shutdown(cancel_futures=True)

    def _make(self, index: int) -> Batch:
        return self._engine.send(self._data.batch(index))
