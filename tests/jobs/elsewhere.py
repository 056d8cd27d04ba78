"""Workers as Ray has them, without Ray: what they get and give is pickled, and they are not done in order."""

from dataclasses import replace
from typing import Any, TypeVar

from ray import cloudpickle

from service.execution.fan_out.mapping import Capacity, Chunk, InProcess, Pool, Work

Some = TypeVar("Some")


def copied(value: Some) -> Some:
    """As it arrives in another process."""
    copy: Some = cloudpickle.loads(cloudpickle.dumps(value))
    return copy


class Elsewhere(InProcess):
    """An executor whose cells and reservations share nothing with the job but what they are sent."""

    def pool(self, work: Work) -> Pool:
        return _LastFirst(super().pool(replace(work, fn=copied(work.fn), shared=copied(work.shared))))

    def reserved(self, run: Any, fn: Any, arguments: tuple[Any, ...]) -> Any:
        return copied(super().reserved(run, copied(fn), copied(arguments)))


class _LastFirst:
    """Of the chunks that wait, the last is computed first."""

    def __init__(self, pool: Pool) -> None:
        self.inner, self.waiting = pool, list[Chunk]()

    def capacity(self) -> Capacity:
        return Capacity(workers=4, in_flight=4)

    def submit(self, chunk: Chunk) -> None:
        self.waiting.append(copied(chunk))

    def finished(self) -> Any:
        self.inner.submit(self.waiting.pop())
        return copied(self.inner.finished())

    def close(self) -> None:
        self.inner.close()
