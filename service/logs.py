"""The run's log: all that Ray, the workers and the jobs print, kept off the terminal and copied into the store."""

import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from service import lock
from service.store import Folder

LOG = "log.txt"
SHIP_SECONDS = 5.0
KEPT_BYTES = 4 << 20  # of the end of the log are kept in the store


@contextmanager
def captured(enabled: bool = True) -> Iterator[tuple[Path | None, TextIO]]:
    """Send this process's standard output and error, and those of all it starts, into a temporary file.

    Yields the file and a stream on the terminal (or wherever standard output went before). Works on the file
    descriptors, because Ray's processes inherit them and its threads write to them directly.
    enabled=False leaves everything where it is, and yields no file.
    """
    if not enabled:
        yield None, sys.stdout
        return
    sys.stdout.flush()
    sys.stderr.flush()
    number, name = tempfile.mkstemp(prefix="assay-", suffix=".log")
    terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    saved_error = os.dup(2)
    logger = logging.getLogger("assay")
    handler = logging.StreamHandler(os.fdopen(os.dup(number), "w", encoding="utf-8"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.close(number)
    try:
        yield Path(name), terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        terminal.flush()
        os.dup2(terminal.fileno(), 1)
        os.dup2(saved_error, 2)
        os.close(saved_error)
        terminal.close()
        logger.removeHandler(handler)
        handler.stream.close()
        os.unlink(name)


@contextmanager
def shipped(log_file: Path | None, folder: Folder) -> Iterator[None]:
    """Copy the end of the local log into the run's folder every few seconds, and once more at the end."""
    if log_file is None:
        yield
        return
    done = threading.Event()
    earlier = folder.read(LOG) if folder.exists(LOG) else b""

    def ship() -> None:
        with open(log_file, "rb") as log:
            log.seek(max(0, os.path.getsize(log_file) - KEPT_BYTES))
            folder.write(LOG, (earlier + log.read())[-KEPT_BYTES:])

    def keep_shipping() -> None:
        size = -1
        while not done.wait(SHIP_SECONDS):
            if (now := os.path.getsize(log_file)) != size:
                size = now
                ship()

    thread = threading.Thread(target=keep_shipping, name="run-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        ship()


def read(folder: Folder, follow: bool) -> Iterator[str]:
    """The log of a run, in pieces; with `follow` until its driver is done."""
    shown = b""
    watch = lock.Watch(folder)
    while True:
        going_on = follow and watch.alive() is not False
        content = folder.read(LOG) if folder.exists(LOG) else b""
        # a long log loses its beginning: go on after the last piece that was shown
        start = content.find(shown[-4096:]) + len(shown[-4096:]) if shown[-4096:] in content else 0
        yield content[start:].decode(errors="replace")
        shown = content
        if not going_on:
            return
        time.sleep(SHIP_SECONDS / 5)
