"""The way of batches from a training set to the device that learns from them."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from jobs.common.training.engine import Batch, Engine


class Batches(Protocol):
    """A training set in batches."""

    def batch(self, index: int) -> Batch:
        """Batch number `index`, counted from 0: tensors on the CPU or on the device. Asked for in order."""


class SideStream:
    """A queue of a GPU beside the one that the network computes in: what is sent there is copied meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))  # a training set may be on its way to the GPU

    def inside(self) -> AbstractContextManager[Any]:
        """What a thread asks of the GPU inside goes into this queue."""
        return torch.cuda.stream(self._stream)

    def sent(self) -> Any:
        """A mark behind all that is in the queue now."""
        return self._stream.record_event()

    def receive(self, batch: Batch, mark: Any) -> None:
        """Let the network's queue wait for a batch, whose memory is not given away before it has been used there."""
        network = torch.cuda.current_stream(self._device)
        network.wait_event(mark)
        for tensor in batch:
            tensor.record_stream(network)


class Loader:
    """Batches on the device. For a GPU the next one is made and sent while it still learns from this one."""

    def __init__(self, data: Batches, engine: Engine, end: int, ahead: bool | None = None) -> None:
        """end: the number after that of the last batch. ahead: make the next one meanwhile; None: for a GPU alone."""
        self._data, self._engine, self._end = data, engine, end
        self._ahead = engine.device.type != "cpu" if ahead is None else ahead
        self._stream = SideStream(engine.device) if self._ahead and engine.device.type == "cuda" else None
        self._next: Future[tuple[Batch, Any]] | None = None
        self._thread = ThreadPoolExecutor(1)

    def batch(self, index: int) -> Batch:
        """Batch number `index`, one after another."""
        if not self._ahead:
            return self._make(index)[0]
        batch, mark = self._make(index) if self._next is None else self._next.result()
        if self._stream is not None:
            self._stream.receive(batch, mark)
        self._next = self._thread.submit(self._make, index + 1) if index + 1 < self._end else None
        return batch

    def close(self) -> None:
        """Make no more."""
        self._thread.shutdown(cancel_futures=True)

    def _make(self, index: int) -> tuple[Batch, Any]:
        """A batch, and the mark behind it in the queue that sends it."""
        if self._stream is None:
            return self._engine.send(self._data.batch(index)), None
        with self._stream.inside():
            batch = self._engine.send(self._data.batch(index))
            return batch, self._stream.sent()
