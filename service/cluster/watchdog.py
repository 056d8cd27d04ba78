"""Ends the processes of an embedded Ray when its driver is gone. A process of its own, started before Ray.

Ray ends what it has started when its driver shuts it down. After a kill it does not: agents outlive their raylet by a
minute, a GCS outlives it for ever. All processes of an embedded Ray bear a mark in their environment.

    python -P watchdog.py MARK        waits until its standard input is closed, as it is when the driver dies
"""

import sys
import time
from collections.abc import Iterator

import psutil

VARIABLE = "ASSAY_EMBEDDED_RAY"
END_SECONDS = 10.0  # after which a process that cannot be killed is left: it waits for a disk


def marked(mark: str) -> Iterator[psutil.Process]:
    """The processes that were started with a mark, and all that they started."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(VARIABLE) == mark:
                yield process
        except (psutil.Error, OSError):  # it has ended, or is somebody else's
            continue


def end(mark: str) -> None:
    """Kill the processes that bear a mark, and return when they are gone."""
    deadline = time.monotonic() + END_SECONDS
    while (processes := list(marked(mark))) and time.monotonic() < deadline:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=1)


if __name__ == "__main__":
    sys.stdin.read()
    end(sys.argv[1])
