"""Cells of the benchmark of the fan-out: each keeps a core busy for a given time."""

import time
from typing import Any


def busy(cell: list[float], shared: Any) -> float:
    """cell: [number, CPU-seconds]. By the clock of the thread: other work on the machine does not count."""
    end = time.thread_time() + cell[1]
    while time.thread_time() < end:
        pass
    return cell[0]
