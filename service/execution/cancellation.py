"""Ending a run early: on request, by a signal, or when its time is over. Always resumable."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from service.execution.records import Failure


class Cancellation:
    """Whether the run shall stop, and why. The first reason counts."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason: Failure | None = None

    def ask(self, cause: Literal["cancelled", "timeout"], message: str) -> None:
        if self.reason is None:
            self.reason = Failure(cause=cause, message=message)
        self.event.set()

    @contextmanager
    def on_signals(self, message: str) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a graceful stop once; a second one ends the process as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def on_signal(number: int, frame: object) -> None:
            self.ask("cancelled", message)
            restore()

        for number in before:
            signal.signal(number, on_signal)
        try:
            yield
        finally:
            restore()

    @contextmanager
    def after(self, seconds: float | None) -> Iterator[None]:
        """Ask for a stop when so many seconds are over; None: never."""
        if seconds is None:
            yield
            return
        message = f"limits.max_seconds: {seconds:g} s are over; `assay resume` goes on from here"
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self.ask, ("timeout", message))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
