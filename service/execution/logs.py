"""The run's log: what happens in it, and all that Ray, the workers and the jobs print, copied into the store.

One JSON object a line. An event has `time`, `level`, `message` and the ids of what it is about: `run`, `trial`, `map`,
`cell`. A line that somebody printed is `{"output": "..."}`. `assay logs` shows both as text.
"""

import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging import INFO
from pathlib import Path
from typing import TextIO

from service.errors import StoreError
from service.execution import layout, lock
from service.store import Folder

SHIP_SECONDS = 5.0
KEPT_BYTES = 4 << 20  # of the end of the log are kept in the store
LINE_CHARACTERS = 1 << 16  # of a line that was printed
IDS = ("trial", "map", "cell")  # that a person is shown; the run is known to who asks for its log

_EVENT = b'{"time": '
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_logger = logging.getLogger("assay")
_logger.addHandler(logging.NullHandler())  # where no log is kept, events are nobody's


def event(message: str, level: int = INFO, **ids: str) -> None:
    """Write into the run's log what happened to whom. ids: run, trial, map, cell."""
    _logger.log(level, message, extra={"ids": ids})


class _Lines(logging.Formatter):
    """Each record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname, **getattr(record, "ids", {}), "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


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
    terminal = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace")
    encodings = [(stream, stream.encoding) for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    saved_error = os.dup(2)
    handler = logging.StreamHandler(os.fdopen(os.dup(number), "w", encoding="utf-8"))
    handler.setFormatter(_Lines())
    _logger.addHandler(handler)
    _logger.setLevel(INFO)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.close(number)
    for stream, _ in encodings:
        stream.reconfigure(encoding="utf-8")  # the log holds all that a job prints, whatever the terminal can show
    try:
        yield Path(name), terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        terminal.flush()
        for stream, encoding in encodings:
            stream.reconfigure(encoding=encoding)
        os.dup2(terminal.fileno(), 1)
        os.dup2(saved_error, 2)
        os.close(saved_error)
        terminal.close()
        _logger.removeHandler(handler)
        handler.stream.close()
        os.unlink(name)


@contextmanager
def shipped(log_file: Path | None, folder: Folder) -> Iterator[None]:
    """Copy the end of the local log into the run's folder every few seconds, and once more at the end."""
    if log_file is None:
        yield
        return
    done = threading.Event()
    earlier = folder.read(layout.LOG) if folder.exists(layout.LOG) else b""

    def ship(to_the_end: bool = False) -> None:
        with open(log_file, "rb") as log:
            log.seek(max(0, os.path.getsize(log_file) - KEPT_BYTES))
            new = log.read()
        if not to_the_end:
            new = new[: new.rfind(b"\n") + 1]  # the rest of the last line is still to come
        kept = earlier + b"".join(_structured(line) for line in new.splitlines())
        if len(kept) > KEPT_BYTES:
            kept = kept[kept.find(b"\n", -KEPT_BYTES) + 1 :]
        folder.write(layout.LOG, kept)

    def keep_shipping() -> None:
        size = -1
        while not done.wait(SHIP_SECONDS):
            if (now := os.path.getsize(log_file)) != size:
                with suppress(StoreError):  # a store that is out of reach for a while
                    ship()
                    size = now

    thread = threading.Thread(target=keep_shipping, name="run-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        ship(to_the_end=True)


def _structured(line: bytes) -> bytes:
    if line.startswith(_EVENT) and _is_event(line):
        return line + b"\n"
    text = _COLOUR.sub("", line.decode(errors="replace"))
    if len(text) > LINE_CHARACTERS:
        text = f"{text[:LINE_CHARACTERS]}… ({len(text):,} characters)"
    return json.dumps({"output": text}).encode() + b"\n"


def _is_event(line: bytes) -> bool:
    try:
        return {"time", "level", "message"} <= set(json.loads(line))
    except (ValueError, RecursionError):  # somebody printed what looks like one
        return False


def _readable(line: bytes) -> str:
    """A line of the log for a person; as it is, if it is damaged."""
    try:
        entry = json.loads(line)
        if "output" in entry:
            return f"{entry['output']}\n"
        ids = " ".join(f"{name} {entry[name]}" for name in IDS if name in entry)
        text = f"{entry['time'][:19].replace('T', ' ')} {entry['level']} {ids}{ids and ': '}{entry['message']}"
        return "\n".join([text, *entry.get("traceback", "").splitlines()]) + "\n"
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return f"{line.decode(errors='replace')}\n"


def read(folder: Folder, follow: bool) -> Iterator[str]:
    """The log of a run as text, in pieces; with `follow` until its driver is done."""
    shown = b""
    watch = lock.Watch(folder)
    while True:
        going_on = follow and watch.alive() is not False
        content = folder.read(layout.LOG) if folder.exists(layout.LOG) else b""
        yield "".join(_readable(line) for line in _added(shown, content).splitlines())
        shown = content
        if not going_on:
            return
        time.sleep(SHIP_SECONDS / 5)


def _added(before: bytes, now: bytes) -> bytes:
    """What a log has that it had not before. A long one has lost its beginning meanwhile."""
    first = now[: now.find(b"\n") + 1]
    start = 0 if now.startswith(before) else before.find(first)
    while first and start >= 0 and not now.startswith(before[start:]):
        start = before.find(first, start + 1)
    return now[len(before) - start :] if start >= 0 else now
