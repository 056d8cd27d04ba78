"""Processes that tests start, watch and end: none outlives its test, and one that goes meanwhile is no error."""

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

PATIENCE_SECONDS = 300.0  # a test that fails may take long, one that passes on a slow machine must not fail


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process. At the end it and all that it has started are killed, whatever happens, and its pipes are closed."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            kill_tree(process)


def kill_tree(process: "subprocess.Popen[Any]") -> None:
    """A process and all that it has started, without a chance to tidy up. One that has ended is left as it is."""
    if process.poll() is not None:
        return  # the system may have given its id to another
    below = list(titles(process.pid))
    process.kill()
    for each in below:
        with suppress(psutil.Error):
            each.kill()
    process.wait()
    psutil.wait_procs(below, timeout=30)


def ended(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """What a process has printed until it ended by itself, with this exit code."""
    parts = process.communicate(timeout=PATIENCE_SECONDS)
    printed = "".join(part for part in parts if part)
    assert process.returncode == code, printed
    return printed


def gone() -> int:
    """The id of a process that is no more."""
    with started(["true"]) as child:
        child.wait()
    return child.pid


def titles(pid: int) -> dict[psutil.Process, str]:
    """All that a process has started, and what they have started, with name and command line; not what has gone."""
    listed: dict[psutil.Process, str] = {}
    with suppress(psutil.Error):
        for each in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                listed[each] = " ".join([each.name(), *each.cmdline()])
    return listed


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run: neither gone nor waiting for their parent to ask how they ended."""
    left = []
    for each in processes:
        with suppress(psutil.Error):
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                left.append(each)
    return left


def wait_for(condition: Callable[[], Any], *needed: "subprocess.Popen[Any]", seconds: float = PATIENCE_SECONDS) -> None:
    """Until a condition is met. needed: processes without which it cannot be met any more."""
    end = time.monotonic() + seconds
    while not condition():
        assert all(process.poll() is None for process in needed), "a process has ended meanwhile"
        assert time.monotonic() < end, f"not met within {seconds:g} s"
        time.sleep(0.1)
