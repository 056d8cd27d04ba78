"""Workers as Ray has them, without Ray: what they get and give is pickled, and they are not done in order.

And what all studies are asked: whether cells that are computed elsewhere, or by Ray, give what a serial run gives.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ray import cloudpickle

from service import spec
from service.execution import runner
from service.execution.fan_out.mapping import Capacity, Chunk, InProcess, Pool, Work
from service.execution.runner import Execution
from service.store import open_store

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


def check_elsewhere(run: Any, params: Any, make_run: Any, names: Sequence[str]) -> None:
    """names: of files below tables/ that must be the same."""
    here, there = make_run("here"), make_run("there", executor=Elsewhere())
    for handle in (here, there):
        run(params, handle)
    for name in names:
        assert here.folder.read(f"tables/{name}") == there.folder.read(f"tables/{name}"), name


def check_ray(job: str, params: Mapping[str, Any], stores: Path, names: Sequence[str]) -> None:
    """The same of a whole run under Ray beside a serial one. stores: a folder for both."""
    folders = []
    for serial in (True, False):
        document = {
            "job": job,
            "params": json.loads(json.dumps(params)),
            "store": str(stores / str(serial)),
            "resources": {"cpus": 2},  # half of the session's Ray: two cells at a time
        }
        state = runner.start(spec.build(document), Execution(serial=serial))
        assert state.status == "finished", state.failure
        folders.append(open_store(document["store"]) / "runs" / state.id / "trials" / "000")
    for name in names:
        assert folders[0].read(f"tables/{name}") == folders[1].read(f"tables/{name}"), name
