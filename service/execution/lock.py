"""One driver a run: a lock with its owner and a heartbeat, in the run's folder.

The owner is known by where its process ids count (the boot of a machine and a namespace on it), its process id, and the
moment that this process began: a name of a host and a process id come again when a container does. Of an owner whose
processes are visible from here the process says whether it is alive. Of any other its heartbeat does: a number that
grows, so clocks of different machines need not agree. The heartbeat informs and never kills: a driver that is slow to
beat goes on, unless another one has taken over meanwhile.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from service.errors import RunLockedError, StoreError
from service.execution import layout
from service.store import Folder

BEAT_SECONDS = 2.0
WATCH_BEATS = 4
CANCELLED = "cancelled on request; `assay resume` goes on from here"
TAKEN_OVER = "another driver has taken over the run"


class RunLock:
    """Held while a driver works on a run. `on_stop` is called once, with the reason, when it has to stop working."""

    def __init__(self, folder: Folder, on_stop: Callable[[str], None]) -> None:
        self.folder = folder
        self.on_stop = on_stop
        self.owner = {**identity(), "token": uuid.uuid4().hex}
        self.taken_over = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run-lock", daemon=True)

    def __enter__(self) -> "RunLock":
        if not self.folder.create(layout.LOCK, self._content(0)):
            self._take_over()
        self.folder.delete(layout.CANCEL)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        if self._is_mine():
            self.folder.delete(layout.LOCK)
            self.folder.delete(layout.CANCEL)

    def check(self) -> None:
        """RunLockedError if another driver works on the run by now: nothing of it is ours to write any more."""
        if self.taken_over:
            raise RunLockedError(f"run {self.folder.name}: {TAKEN_OVER}")

    def _take_over(self) -> None:
        """Become the owner instead of one that is gone. RunLockedError if it is not, or if another one was faster."""
        before = holder_of(self.folder)
        if all(alive(self.folder)) and (holder := holder_of(self.folder)):
            raise RunLockedError(
                f"run {self.folder.name} is being worked on by process {holder['pid']} "
                f"on {holder['host']} since {holder['since']}",
                hint="wait for it, or `assay cancel` it first",
            )
        faster = RunLockedError(f"run {self.folder.name}: {TAKEN_OVER} at the same moment")
        if not self.folder.create(layout.TAKE_OVER, b""):
            self._wait_for_another()
            raise faster
        try:
            if holder_of(self.folder) != before:
                raise faster
            self.folder.write(layout.LOCK, self._content(0))
        finally:
            self.folder.delete(layout.TAKE_OVER)

    def _wait_for_another(self) -> None:
        """Until another one has taken over, which takes a moment, or must have died at it."""
        for _ in range(4 * WATCH_BEATS):
            time.sleep(BEAT_SECONDS / 4)
            if not self.folder.exists(layout.TAKE_OVER):
                return
        self.folder.delete(layout.TAKE_OVER)

    def _is_mine(self) -> bool:
        holder = holder_of(self.folder)
        return holder is not None and holder["token"] == self.owner["token"]

    def _content(self, beat: int) -> bytes:
        return json.dumps({**self.owner, "beat": beat}).encode()

    def _beat(self) -> None:
        beat, stopped = 0, False
        while not self._done.wait(BEAT_SECONDS):
            beat += 1
            try:
                holder = holder_of(self.folder)
                self.taken_over = holder is not None and holder["token"] != self.owner["token"]
                if not self.taken_over:
                    self.folder.write(layout.LOCK, self._content(beat))
                cancelled = self.folder.exists(layout.CANCEL)
            except StoreError:
                continue  # a store that hiccups does not end a run: the next beat tries again
            if (self.taken_over or cancelled) and not stopped:
                stopped = True
                self.on_stop(TAKEN_OVER if self.taken_over else CANCELLED)


def identity() -> dict[str, Any]:
    """This process: for people (host, since), and for telling it from any other."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "place": _place(),
        "began": _began("self"),
    }


def holder_of(folder: Folder) -> dict[str, Any] | None:
    """The owner of the run's lock, None if nobody holds it (a lock that cannot be read is held by nobody)."""
    if not folder.exists(layout.LOCK):
        return None
    try:
        holder = json.loads(folder.read(layout.LOCK))
        return holder if isinstance(holder, dict) and {*identity(), "token", "beat"} <= holder.keys() else None
    except (ValueError, RecursionError, StoreError):
        return None


class Watch:
    """Whether a driver works on a run, by looking again and again."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.seen = holder_of(folder)
        self.since = time.monotonic()
        self.beating = False

    def alive(self) -> bool | None:
        """True: it works on it. False: it does not. None: one has to look longer."""
        now = holder_of(self.folder)
        if now is None:
            being_made = self.folder.exists(layout.LOCK) and time.monotonic() - self.since < BEAT_SECONDS
            return None if being_made else False
        if (verdict := _process_alive(now)) is not None:
            return verdict
        if self.seen is None or (now["token"], now["beat"]) != (self.seen["token"], self.seen["beat"]):
            self.seen, self.since, self.beating = now, time.monotonic(), True
        if time.monotonic() - self.since > WATCH_BEATS * BEAT_SECONDS:
            return False
        return True if self.beating else None


def alive(*folders: Folder) -> list[bool]:
    """Whether a driver works on each of these runs. Takes seconds if the processes of one are not visible from here."""
    watches = [Watch(folder) for folder in folders]
    verdicts = [watch.alive() for watch in watches]
    while None in verdicts:
        time.sleep(BEAT_SECONDS / 4)
        verdicts = [watch.alive() if each is None else each for watch, each in zip(watches, verdicts, strict=True)]
    return [bool(each) for each in verdicts]


def _process_alive(holder: dict[str, Any]) -> bool | None:
    """Whether the process of an owner is there, None if that cannot be known from here."""
    place, pid = _place(), holder["pid"]
    if place is None or holder["place"] != place or not isinstance(pid, int) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number of that size
        return False
    except PermissionError:
        pass  # that of another user
    began = _began(pid)
    return None if began is None else began == holder["began"]


def _place() -> str | None:
    """Where process ids count: the host, its boot and the namespace of this process. None where Linux does not say."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None  # /proc is that of another namespace
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int | str) -> int | None:
    """When a process began, in ticks since the boot; -1 if it is dead and not yet collected. None: nobody says."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
