"""The run's log: one JSON object a line with the ids of what it is about, and text for who reads it."""

import json
import os
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import spec
from service.cli.commands import main
from service.errors import StoreError
from service.execution import logs, runner
from service.execution.layout import LOG
from service.execution.lock import RunLock
from service.execution.runner import Execution
from service.store import Folder, open_store
from tests.processes import wait_for

IMITATION = '{"time": "now", "level": "INFO"}'


def entries(folder: Folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.read(LOG).splitlines()]


def test_a_run_tells_of_its_trials_and_of_cells_that_failed(tmp_path: Path) -> None:
    job_spec = spec.build(
        {
            "job": "tests.service.grid",
            "store": str(tmp_path / "store"),
            "params": {"cells": 4, "folder": str(tmp_path), "fail": [2]},
            "sweep": {"grid": {"seed": [1, 2]}},
        }
    )
    with logs.captured() as (log_file, _):
        state = runner.start(job_spec, Execution(serial=True, log_file=log_file), "r1")
    assert state.status == "partial"
    found = entries(open_store(job_spec.store) / "runs" / "r1")
    events = [each for each in found if "message" in each]
    assert all(datetime.fromisoformat(each["time"]).tzinfo and each["run"] == "r1" for each in events)
    told = [(each.get("trial"), each.get("map"), each["message"].partition(":")[0].split()[0]) for each in events]
    of_trial = [(None, "started"), ("grid", "failed"), ("grid", "grid"), (None, "partial")]
    assert told == [
        (None, None, "run"),
        *[(trial, where, word) for trial in ("000-seed-1", "001-seed-2") for where, word in of_trial],
        (None, None, "run"),
    ]
    assert events[0]["message"] == "run of job tests.service.grid started, 2 trials to go"
    assert events[-1]["message"].startswith("run partial after ")
    (first, second) = [each for each in events if "cell" in each]
    assert json.loads(first["cell"])["index"] == 2 and first["cell"] != second["cell"], "their seeds differ"
    assert (first["level"], first["message"]) == ("WARNING", "failed: ArithmeticError: cell 2 does not converge")


def test_what_is_printed_is_kept_beside_the_events_and_read_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = open_store(str(tmp_path)) / "runs" / "r2"
    folder.write("run.json", b"{}")
    with logs.captured() as (log_file, _), logs.shipped(log_file, folder):
        os.write(1, b"plain\n\x1b[36m(trial pid=7)\x1b[0m in colour\n")
        logs.event("started: walk", run="r2", trial="000")
        os.write(2, IMITATION.encode() + b"\n\xff\nno end of line")
    event = entries(folder)[2]
    assert (event["level"], event["trial"], event["message"]) == ("INFO", "000", "started: walk")
    assert [each["output"] for each in entries(folder) if "output" in each] == [
        "plain", "(trial pid=7) in colour", IMITATION, "\N{REPLACEMENT CHARACTER}", "no end of line",
    ]  # fmt: skip
    assert main(["logs", "r2", "--store", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["plain", "(trial pid=7) in colour"] and shown[3:] == [
        IMITATION, "\N{REPLACEMENT CHARACTER}", "no end of line",
    ]  # fmt: skip
    assert shown[2] == f"{event['time'][:19].replace('T', ' ')} INFO trial 000: started: walk"


def test_a_log_that_grows_too_long_loses_whole_lines_at_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "KEPT_BYTES", 1000)
    folder = open_store(str(tmp_path)) / "runs" / "r3"
    for part in range(2):  # the second driver goes on with the log of the first
        with logs.captured() as (log_file, _), logs.shipped(log_file, folder):
            os.write(1, b"".join(b"line %d of %d\n" % (index, part) for index in range(30)))
    found = [each["output"] for each in entries(folder)]
    whole = [f"line {index} of {part}" for part in range(2) for index in range(30)]
    assert found == whole[-len(found) :] and len(found) > 20 and len(folder.read(LOG)) <= 1000


def test_a_line_that_is_being_written_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who follows a log sees each line once, though its end came later than its beginning."""
    monkeypatch.setattr(logs, "SHIP_SECONDS", 0.02)
    folder = open_store(str(tmp_path)) / "runs" / "r4"
    with (
        RunLock(folder, on_stop=lambda reason: None),
        logs.captured() as (log_file, _),
        logs.shipped(log_file, folder),
    ):
        os.write(1, b"first\nsec")
        follower = logs.read(folder, follow=True)
        seen = next(follower)
        while not seen:
            seen = next(follower)
        assert seen == "first\n"
        os.write(1, b"ond\n")
    assert "".join(follower) == "second\n"


def test_without_a_log_events_go_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    with logs.captured(enabled=False) as (log_file, _):
        logs.event("failed", 40, run="r5", trial="000")
    assert log_file is None and capfd.readouterr() == ("", "")


def test_a_line_that_only_begins_like_an_event_is_output() -> None:
    line = logs._EVENT + b"[" * 50_000
    assert json.loads(logs._structured(line)) == {"output": line.decode()}


def test_the_log_goes_on_when_the_store_could_not_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SHIP_SECONDS", 0.02)
    folder = open_store(str(tmp_path)) / "runs" / "r6"
    write, tried = Folder.write, threading.Event()

    def once_out_of_reach(self: Folder, name: str, data: bytes) -> None:
        if not tried.is_set():
            tried.set()
            raise StoreError("out of reach")
        write(self, name, data)

    monkeypatch.setattr(Folder, "write", once_out_of_reach)
    with logs.captured() as (log_file, _), logs.shipped(log_file, folder):
        os.write(1, b"kept\n")
        wait_for(lambda: folder.exists(LOG), seconds=10)
    assert [each["output"] for each in entries(folder)] == ["kept"]


def test_a_line_too_long_for_the_log_is_cut_and_the_others_are_kept(tmp_path: Path) -> None:
    folder = open_store(str(tmp_path)) / "runs" / "r7"
    with logs.captured() as (log_file, _), logs.shipped(log_file, folder):
        os.write(1, b"before\n" + "ä".encode() * 1_600_000 + b"\nafter\n")
    before, long, after = [each["output"] for each in entries(folder)]
    assert (before, after) == ("before", "after") and long.endswith("ä… (1,600,000 characters)")


@pytest.mark.parametrize("line", [b"no json", b"3", b'{"time": 1}', b"[" * 100_000, b"\xff"])
def test_a_damaged_line_is_shown_as_it_is(line: bytes) -> None:
    assert logs._readable(line) == line.decode(errors="replace") + "\n"


@given(st.lists(st.sampled_from([b"a\n", b"a\n", b"b\n"]), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_who_follows_a_log_sees_what_came_and_nothing_twice(lines: list[bytes], shown: int, lost: int) -> None:
    before = b"".join(lines[:shown])
    now = b"".join(lines[min(lost, shown) :])  # without its beginning
    added = logs._added(before, now)
    assert now.endswith(added) and len(added) <= len(b"".join(lines[shown:])), "nothing twice"
    if lost == 0:
        assert added == b"".join(lines[shown:])
