"""The Ray that a driver starts for itself. It ends with the driver, whichever of their processes is killed first.

Without its raylet or its GCS nothing goes on, but Ray waits: for another node without an end, for another GCS a minute,
and then it ends the driver without a sentence. So a thread of the driver looks after both. When one is gone it ends the
others, and what the driver does in `while_up` gives up. When the driver itself is gone, a watchdog ends the rest.

Imports no Ray, so that the command line may ask here whether one was lost.
"""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from service.cluster import watchdog
from service.errors import ClusterError

VITAL = ("raylet", "gcs_server")
LOOK_SECONDS = 0.25  # between two looks at them
ECHO_SECONDS = 5.0  # that an error of Ray's waits for word that Ray itself is lost, of which it may be the echo
_lost: str | None = None  # the process that the embedded Ray of this driver has lost
_is_up = False  # whether this driver has an embedded Ray


@contextmanager
def started(init: Callable[[], object], shutdown: Callable[[], object]) -> Iterator[None]:
    """An embedded Ray for the length of a `with` block. init, shutdown: Ray's own.

    A Ray that was lost is not shut down: that waits for its GCS. Its process cannot use Ray again.
    """
    global _is_up
    mark, done = uuid.uuid4().hex, threading.Event()
    command = [sys.executable, "-P", watchdog.__file__, mark]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert guard.stdin is not None
    try:
        os.environ[watchdog.VARIABLE] = mark
        try:
            init()
        finally:
            del os.environ[watchdog.VARIABLE]
        looking = threading.Thread(target=_look, args=(mark, done), name="embedded-ray", daemon=True)
        looking.start()
        _is_up = True
        try:
            yield
        finally:
            _is_up = False
            done.set()
            looking.join()
            if _lost is None:
                shutdown()
    finally:
        guard.stdin.close()
        guard.wait()


def _look(mark: str, done: threading.Event) -> None:
    """End all processes of the embedded Ray as soon as it cannot go on."""
    global _lost
    children: dict[str, psutil.Process] = {}
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            children[child.name()] = child
    while not done.wait(LOOK_SECONDS):
        for name in VITAL:
            if name not in children or not _runs(children[name]):
                watchdog.end(mark)  # first: what computes there may still write to the store
                _lost = name
                return


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_up() -> bool:
    """Whether this driver has an embedded Ray."""
    return _is_up


def while_up(work: Callable[[], object]) -> None:
    """Do what needs Ray. ClusterError if the embedded Ray is lost meanwhile.

    Done in a thread of its own, which is left alone then: a call of Ray's may not return, and no signal interrupts it.
    """
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, name="on-ray", daemon=True)
    thread.start()
    while thread.is_alive() and _lost is None:
        thread.join(LOOK_SECONDS)
    deadline = time.monotonic() + ECHO_SECONDS
    while errors and _is_up and _lost is None and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    if _lost is not None:
        raise ClusterError(f"the embedded Ray has lost its {_lost}: it was killed, or has crashed")
    if errors:
        raise errors[0]


def leave_if_lost(exit_code: int) -> None:
    """End this process at once if its Ray was lost: the interpreter would wait a minute for threads of Ray's."""
    if _lost is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
