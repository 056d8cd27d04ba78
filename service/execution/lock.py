"""One driver a run: a lock with its owner and a heartbeat, in the run's folder.

The heartbeat is a number that grows, so clocks of different machines need not agree. It informs and never kills: a
driver that is slow to beat goes on. A lock is dead if its owner is a process of this machine that is gone, or if
its number stands still while we watch for several beats.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

from service.errors import RunLockedError, StoreError
from service.execution import layout
from service.store import Folder

BEAT_SECONDS = 2.0
WATCH_BEATS = 4


class RunLock:
    """Held while a driver works on a run. `on_cancel` is called once when somebody asks the run to stop."""

    def __init__(self, folder: Folder, on_cancel: Callable[[], None]) -> None:
        self.folder = folder
        self.on_cancel = on_cancel
        self.owner = {**identity(), "token": uuid.uuid4().hex}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run-lock", daemon=True)

    def __enter__(self) -> "RunLock":
        if not self.folder.create(layout.LOCK, self._content(0)):
            holder = holder_of(self.folder)
            if holder and all(alive(self.folder)):
                raise RunLockedError(
                    f"run {self.folder.name} is being worked on by process {holder['pid']} "
                    f"on {holder['host']} since {holder['since']}",
                    hint="wait for it, or `assay cancel` it first",
                )
            self.folder.write(layout.LOCK, self._content(0))  # its owner is gone: take it over
            if (now := holder_of(self.folder)) is None or now["token"] != self.owner["token"]:
                raise RunLockedError("another driver took over the run at the same moment")
        self.folder.delete(layout.CANCEL)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self.folder.delete(layout.LOCK)
        self.folder.delete(layout.CANCEL)

    def _content(self, beat: int) -> bytes:
        return json.dumps({**self.owner, "beat": beat}).encode()

    def _beat(self) -> None:
        beat, passed_on = 0, False
        while not self._done.wait(BEAT_SECONDS):
            beat += 1
            try:
                self.folder.write(layout.LOCK, self._content(beat))
                asked = self.folder.exists(layout.CANCEL)
            except StoreError:
                continue  # a store that hiccups does not end a run: the next beat tries again
            if asked and not passed_on:
                passed_on = True
                self.on_cancel()


def identity() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def holder_of(folder: Folder) -> dict[str, Any] | None:
    """The owner of the run's lock, None if nobody holds it (a lock that cannot be read is held by nobody)."""
    if not folder.exists(layout.LOCK):
        return None
    try:
        holder = json.loads(folder.read(layout.LOCK))
        return holder if {"host", "pid", "since", "token", "beat"} <= set(holder) else None
    except (ValueError, TypeError, StoreError):
        return None


class Watch:
    """Whether a driver works on a run, by looking again and again. Of one on another machine, it is its heartbeat."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.seen = holder_of(folder)
        self.since = time.monotonic()
        self.beating = False

    def alive(self) -> bool | None:
        """True: it works on it. False: it does not. None: one has to look longer."""
        now = holder_of(self.folder)
        if now is None:
            return False
        if now["host"] == socket.gethostname():
            return _process_exists(now["pid"])
        if self.seen is None or (now["token"], now["beat"]) != (self.seen["token"], self.seen["beat"]):
            self.seen, self.since, self.beating = now, time.monotonic(), True
        if time.monotonic() - self.since > WATCH_BEATS * BEAT_SECONDS:
            return False
        return True if self.beating else None


def alive(*folders: Folder) -> list[bool]:
    """Whether a driver works on each of these runs. Takes seconds if one of them is on another machine."""
    watches = [Watch(folder) for folder in folders]
    verdicts = [watch.alive() for watch in watches]
    while None in verdicts:
        time.sleep(BEAT_SECONDS / 4)
        verdicts = [watch.alive() if each is None else each for watch, each in zip(watches, verdicts, strict=True)]
    return [bool(each) for each in verdicts]


def _process_exists(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _zombie(pid)


def _zombie(pid: int) -> bool:
    """A killed process that its parent has not collected still answers to signals."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return False
