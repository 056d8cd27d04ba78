"""Ray for a run, started while a thread imports what validation and the run need: each takes seconds of its own.

Ray is started by the main thread, which alone can be told by signals. What a module raises in the other thread it
raises once more where it is used. The workers of an embedded Ray import the same meanwhile.
"""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service import catalog
from service.cluster import connection

RUNNER, TRIALS = "service.execution.runner", "service.cluster.sweep"  # both are slow to load: torch, and Ray Tune


@contextmanager
def connected(job: str, address: str | None, cpus: int | None, insecure: bool) -> Iterator[None]:
    """`connection.connect` for a run of a job, whose spec is still to be validated."""
    module = catalog.module_of(job)
    importing = threading.Thread(target=_import, args=((RUNNER, module, TRIALS),), name="imports")
    importing.start()
    # a module of the user's own may do what is only right where a trial is to run
    preload = [TRIALS] if catalog.is_own(job) else [TRIALS, module]
    try:
        with connection.connect(address, cpus, insecure, preload=preload):
            yield
    finally:
        importing.join()


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
