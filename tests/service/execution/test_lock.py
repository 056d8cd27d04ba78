"""Who works on a run: nobody twice, and nobody for ever."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from service.errors import RunLockedError
from service.execution import lock
from service.execution.layout import LOCK, TAKE_OVER
from service.execution.lock import RunLock, alive, holder_of, identity
from service.store import Folder, open_store
from tests.processes import gone, started


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    return open_store(str(tmp_path)) / "runs" / "one"


def hold(folder: Folder, **changes: Any) -> RunLock:
    """What holds the lock in this process, with some of its marks changed."""
    holding = RunLock(folder, on_stop=lambda reason: None)
    holding.owner |= changes
    return holding


def leave(folder: Folder, **changes: Any) -> None:
    """A lock as an owner leaves it that was killed."""
    folder.write_json(LOCK, {**identity(), "token": "x", "beat": 3, **changes})


def test_one_driver_at_a_time(folder: Folder) -> None:
    with hold(folder):
        with (
            pytest.raises(RunLockedError, match=f"run one is being worked on by process {os.getpid()} on "),
            hold(folder),
        ):
            pass
        assert alive(folder) == [True]
    assert alive(folder) == [False] and folder.names() == []


@pytest.mark.parametrize(
    "changes",
    [{"pid": "gone"}, {"began": 1}, {"pid": 10**30}],
    ids=["process gone", "process id come again", "no process id"],
)
def test_a_dead_process_of_this_place_is_known_at_once(
    folder: Folder, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(folder, **({"pid": gone()} if changes.get("pid") == "gone" else changes))
    monkeypatch.setattr(lock, "BEAT_SECONDS", 1e6)  # nobody waits for a heart to beat
    assert alive(folder) == [False]
    with hold(folder):
        pass


def test_a_zombie_is_dead(folder: Folder) -> None:
    with started(["cat"], stdin=subprocess.PIPE) as child:
        leave(folder, pid=child.pid, began=lock._began(child.pid))
        assert alive(folder) == [True] and child.stdin
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert alive(folder) == [False]


@pytest.mark.parametrize("place", ["another machine or container", None])
def test_of_a_process_that_is_not_visible_the_heartbeat_says_whether_it_is_alive(
    folder: Folder, place: str | None
) -> None:
    """Also where the host has the name of this one, and its process the id of one that is gone or alive here."""
    for pid in (gone(), os.getpid()):
        with hold(folder, place=place, pid=pid), pytest.raises(RunLockedError), hold(folder):
            pass
        leave(folder, place=place, pid=pid)
        with hold(folder):
            pass


def test_where_nothing_is_known_of_processes_the_heartbeat_counts(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_place", lambda: None)
    with hold(folder), pytest.raises(RunLockedError), hold(folder):
        pass
    leave(folder)
    assert alive(folder) == [False]


NAMES = json.dumps(["host", "pid", "since", "place", "began", "token", "beat"]).encode()


@pytest.mark.parametrize("content", [b"", b"not json", b"\xff", b"3", b"[]", b"[" * 100_000, NAMES])
def test_a_lock_that_cannot_be_read_is_held_by_nobody(folder: Folder, content: bytes) -> None:
    folder.write(LOCK, content)
    with hold(folder):
        pass


def test_of_many_that_take_over_one_does(folder: Folder) -> None:
    leave(folder, began=1)
    owners: list[RunLock] = []
    start = threading.Barrier(6)

    def take() -> None:
        taking = hold(folder)
        start.wait()
        try:
            taking.__enter__()
        except RunLockedError:
            return
        owners.append(taking)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (owner,) = owners
    owner.__exit__(None, None, None)
    assert folder.names() == []


def test_one_that_died_while_it_took_over_is_not_waited_for_twice(folder: Folder) -> None:
    leave(folder, began=1)
    folder.write(TAKE_OVER, b"")
    with pytest.raises(RunLockedError, match="at the same moment"), hold(folder):
        pass
    with hold(folder):
        pass


def test_a_driver_whose_run_was_taken_over_stops_and_leaves_the_lock_alone(folder: Folder) -> None:
    """As one that was suspended for long."""
    stopped = threading.Event()
    reasons: list[str] = []

    def stop(reason: str) -> None:
        reasons.append(reason)
        stopped.set()

    with RunLock(folder, on_stop=stop) as holding:
        holding.check()
        leave(folder, token="another")
        assert stopped.wait(5)
        with pytest.raises(RunLockedError, match="run one: another driver has taken over the run"):
            holding.check()
    holder = holder_of(folder)
    assert reasons == [lock.TAKEN_OVER] and holder and holder["token"] == "another"
