"""The store: the same promises on a local disk and on an object store, kept also when things go wrong."""

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import StoreError
from service.store import Folder, open_store


@pytest.fixture
def store(any_store_uri: str) -> Folder:
    return open_store(any_store_uri)


def test_what_is_written_is_read(store: Folder) -> None:
    assert store.names() == [] and store.files() == [] and not store.exists("a")
    store.write("a", b"1")
    store.write("runs/one/deep/b", b"22")
    (store / "runs" / "one").write("c", b"")
    assert store.names() == ["a", "runs"]
    assert store.files() == ["a", "runs/one/c", "runs/one/deep/b"]
    assert (store / "runs/one").files() == ["c", "deep/b"]
    assert store.read("runs/one/deep/b") == b"22" and store.size("runs/one/deep/b") == 2
    store.write("a", b"longer than before")
    assert store.read("a") == b"longer than before"


def test_json_and_tables(store: Folder) -> None:
    store.write_json("x.json", {"a": [1, None, "ü"]})
    assert store.read_json("x.json") == {"a": [1, None, "ü"]}
    table = pa.table({"step": [1, 2], "loss": [0.5, None]})
    store.write_table("x.parquet", table)
    assert store.read_table("x.parquet") == table
    assert store.read_rows("x.parquet") == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]
    assert store.read_rows("x.parquet", ["step"]) == [{"step": 1}, {"step": 2}]
    with pytest.raises(StoreError, match=r"x\.parquet\S* is damaged: .*key"):
        store.read_rows("x.parquet", ["key"])
    with pytest.raises(StoreError, match=r"x\.parquet\S* is damaged: not JSON"):
        store.read_json("x.parquet")
    with pytest.raises(StoreError, match=r"x\.json\S* is damaged: not a parquet table"):
        store.read_table("x.json")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([2**62], pa.timestamp("ms")),
        pa.array([2**30], pa.date32()),
        pa.array([1], pa.timestamp("ms", tz="Nowhere/City")),
        pa.array([b"\xff"], pa.binary()).view(pa.string()),
    ],
    ids=["moment", "day", "zone", "text"],
)
def test_a_table_of_what_python_has_not(store_uri: str, values: pa.Array) -> None:
    local = open_store(store_uri)
    local.write_table("x.parquet", pa.table({"a": values}))
    with pytest.raises(StoreError, match=r"x\.parquet is damaged: ."):
        local.read_rows("x.parquet")


def test_a_file_is_created_once(store: Folder) -> None:
    assert store.create("lock", b"first")
    assert not store.create("lock", b"second")
    assert store.read("lock") == b"first"


def test_a_file_is_created_once_where_there_are_no_hard_links(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT, SMB and many file systems in user space. Of eight that create at once exactly one does."""

    def link(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    store = open_store(store_uri)
    created: list[str] = []

    def create(content: str) -> None:
        if store.create("lock", content.encode()):
            created.append(content)

    threads = [threading.Thread(target=create, args=(f"content {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (content,) = created
    assert store.read("lock") == content.encode() and os.listdir(store.path) == ["lock"]


@pytest.mark.parametrize("failing", ["fsync", "link"])
def test_a_write_that_fails_leaves_no_folder(store_uri: str, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def refuse(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        (open_store(store_uri) / "runs" / "one").create("spec.yaml", b"job: x")
    assert os.listdir(Path(store_uri) / "runs") == []


@pytest.mark.parametrize("name", ["q?x", "a#b", "50%3F", "a b", "*[a]", "s3:x"])
def test_any_local_folder_is_the_same_for_another_process(tmp_path: Path, name: str) -> None:
    uris = [str(tmp_path / name), f"file://{quote(str(tmp_path / name))}"]
    for number, uri in enumerate(uris):
        folder = open_store(uri) / "runs" / "one"
        folder.write(f"{number}", b"1")
        twin = open_store(folder.uri)
        assert twin.path == folder.path and twin.names() == [str(each) for each in range(number + 1)]
        assert folder.uri_of("a") == str(tmp_path / name / "runs" / "one" / "a")
    assert os.listdir(tmp_path) == [name]


def test_deleting(store: Folder) -> None:
    for name in ("run/a", "run/deep/b", "other"):
        store.write(name, b"x")
    store.delete("run/a")
    store.delete("absent")
    assert store.files() == ["other", "run/deep/b"]
    (store / "run").delete()
    assert store.files() == ["other"]


def test_a_folder_is_made_while_it_is_listed(tmp_path: Path) -> None:
    for index in range(300):
        folder = open_store(str(tmp_path)) / f"{index}"
        maker = threading.Thread(target=folder.write, args=("file", b""))
        maker.start()
        while not folder.names():
            pass
        maker.join()


def test_another_process_opens_the_same_folder(store: Folder) -> None:
    store.write("runs/one/a", b"1")
    twin = pickle.loads(pickle.dumps(store / "runs" / "one"))
    assert twin.read("a") == b"1" and twin.uri == (store / "runs" / "one").uri


def test_errors_are_one_sentence(store: Folder) -> None:
    with pytest.raises(StoreError, match=r"cannot read \S*absent\S*: ") as caught:
        store.read("absent")
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match=r"cannot look for \S*absent\S*: no such file"):
        store.size("absent")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "a//b", ".", "a\\b", "a\0b"])
def test_nothing_outside_can_be_named(store: Folder, name: str) -> None:
    for reach in (store.read, store.exists, store.delete, store.__truediv__):
        with pytest.raises(StoreError, match="is not a name inside the store"):
            reach(name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=60), data=st.binary(max_size=200))
def test_any_name_is_kept_or_refused(tmp_path: Path, name: str, data: bytes) -> None:
    store = open_store(str(tmp_path / "inside"))
    try:
        store.write(name, data)
    except StoreError:
        return
    assert store.read(name) == data and name in store.files()
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    store.delete(name)


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    """Those in the store of somebody else; its own folder may be behind one, and links inside are followed."""
    outside, real, linked = tmp_path / "outside", tmp_path / "real", tmp_path / "linked"
    for path in (outside / "checkpoints", real / "runs" / "one"):
        path.mkdir(parents=True)
    (outside / "checkpoints" / "state").write_bytes(b"mine")
    linked.symlink_to(real)
    store = open_store(str(linked))
    store.write("runs/one/a", b"1")
    (real / "runs" / "two").symlink_to("one")
    assert (store / "runs" / "two").read("a") == b"1" and store.exists("runs/two/a")

    (real / "runs" / "out").symlink_to(outside)
    (real / "runs" / "one" / "b").symlink_to(outside / "checkpoints" / "state")
    out, one = store / "runs" / "out", store / "runs" / "one"
    assert not out.exists("checkpoints/state") and not one.exists("b")
    assert out.names() == out.folders() == out.files() == []
    attempts: list[Callable[[], object]] = [
        lambda: out.read("checkpoints/state"),
        lambda: one.read("b"),
        lambda: one.size("b"),
        lambda: out.write("a", b"2"),
        lambda: out.create("a", b"2"),
        lambda: out.delete("checkpoints"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="symbolic link that leads out of the store"):
            attempt()
    store.delete("runs")
    assert os.listdir(outside) == ["checkpoints"] and os.listdir(outside / "checkpoints") == ["state"]


def test_check(store: Folder) -> None:
    store.check()
    assert store.files() == []


@pytest.mark.parametrize(
    "uri",
    ["s3:/x", "gopher://x/y", "://x", "s4://bucket", "file:///tmp/q?x", "s3://bucket/a#b", "~nobody-here/x"]
    + ["a\0b", "/tmp/\udcff"],
)
def test_what_cannot_be_opened(uri: str) -> None:
    with pytest.raises(StoreError):
        open_store(uri).check()


def test_a_bucket_out_of_reach(monkeypatch: pytest.MonkeyPatch, s3_server: str) -> None:
    store = open_store(f"s3://nobody-has-made-this/store?endpoint_override={s3_server}&scheme=http")
    with pytest.raises(StoreError, match="cannot write s3://nobody-has-made-this/store"):
        store.check()


def test_any_file_system_of_fsspec() -> None:
    store = open_store("memory://assay-test/store")
    store.write("runs/a", b"1")
    assert store.files() == ["runs/a"] and store.read("runs/a") == b"1"
    (store / "runs").delete()
    assert store.files() == []


def test_an_unwritable_and_an_impossible_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file/store/check-\w+: Not a directory"):
        open_store(str(tmp_path / "file" / "store")).check()
    with pytest.raises(StoreError, match="cannot write /proc/nowhere"):
        open_store("/proc/nowhere").check()


def test_a_full_disk(tmp_path: Path) -> None:
    """On a real file system of 64 KB: the write fails in a sentence, what was there stays, nothing is left aside."""
    script = f"""
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", {str(tmp_path)!r}], check=True)
from service.errors import StoreError
from service.store import open_store
store = open_store({str(tmp_path / "store")!r})
store.write("a", b"kept")
try:
    store.write("a", bytes(100_000))
except StoreError as error:
    print(error)
print(store.read("a"), store.files(), __import__("os").listdir(store.path))
"""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces on this machine")
    done = subprocess.run(["unshare", "-rm", sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"cannot write {tmp_path}/store/a: the disk is full",
        "b'kept' ['a'] ['a']",
    ], done.stderr


def _write_for_ever(uri: str) -> None:
    store = open_store(uri)
    for number in range(10**9):
        store.write("file", bytes([number % 256]) * 3_000_000)


def test_a_writer_that_is_killed_leaves_a_whole_file(store_uri: str) -> None:
    store = open_store(store_uri)
    for pause in (0.0, 0.011, 0.023):
        writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(store_uri,))
        writer.start()
        while not store.exists("file"):
            time.sleep(0.01)
        time.sleep(0.05 + pause)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        data = store.read("file")
        assert len(data) == 3_000_000 and len(set(data)) == 1
        assert store.files() == ["file"], "what was left aside is not shown"
        store.delete("file")


def test_readers_never_see_half_a_file(store: Folder) -> None:
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    store.write("file", contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(30):
            store.write("file", contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert store.read("file") in contents
    writer.join()
