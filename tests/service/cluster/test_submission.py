"""Before a run is handed to a cluster: what a head may be that is none, and what is shipped to one."""

import json
import os
import platform
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from service.cli.commands import main
from service.cluster import address, packaging, submission
from service.cluster.submission import Head
from service.errors import AssayError, ClusterError, InputError, TooLargeError
from service.execution import lock
from service.execution.layout import LOCK
from service.execution.lock import identity
from service.execution.records import RunRecord, write
from service.store import open_store

TOKEN = "5" * 32


class FakeHead:
    """Answers as the dashboard of a head node does. jobs: its table."""

    def __init__(self) -> None:
        self.mode, self.ray, self.python = "disabled", ray.__version__, platform.python_version()
        self.nodes: list[dict[str, float]] = [{"CPU": 4.0, "memory": 2.0**34}]
        self.jobs: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.submitted: list[dict[str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked.append((self.path, self.headers.get("Authorization", "")))
                path = self.path.partition("?")[0]
                open_to_all = fake.mode != "token" or path == "/api/authentication_mode"
                if not open_to_all and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.answer(403, "Forbidden")
                nodes = [{"state": "ALIVE", "resources_total": each} for each in fake.nodes]
                known = {
                    "/api/authentication_mode": {"authentication_mode": fake.mode},
                    "/api/version": {"version": "4", "ray_version": fake.ray, "ray_commit": "", "session_name": ""},
                    "/api/v0/cluster_metadata": {"data": {"rayVersion": fake.ray, "pythonVersion": fake.python}},
                    "/api/v0/nodes": {"data": {"result": {"result": [*nodes, {"state": "DEAD"}]}}},
                    "/api/jobs/": fake.jobs,
                }
                packages = path.startswith("/api/packages/")
                return self.answer(200 if path in known or packages else 404, known.get(path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.submitted.append(body)
                self.answer(200, {"job_id": body["submission_id"], "submission_id": body["submission_id"]})

            def answer(self, status: int, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.handler = Handler
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHead]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeHead()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    fake.thread.join()


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    path = tmp_path / "walk.yaml"
    path.write_text(f"job: tests.service.walk\nstore: {tmp_path / 'store'}\n")
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# ---- the head ------------------------------------------------------------------------------------------------------


def test_a_dead_address_is_noticed_before_anything_else(walk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert main(["submit", "absent.yaml", "--address", "http://127.0.0.1:1"]) == 2
    assert time.monotonic() - began < 20
    assert "nobody answers at the Ray address '127.0.0.1:1'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text", ["head:8265", "ray://head:10001", "http://", "http://head:x", "http://u@h", "http://h/p"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ClusterError, match="is not the address of a Ray dashboard"):
        address.parse(text)


def test_another_ray_is_refused_and_another_python_is_told_of(head: FakeHead) -> None:
    head.python = "3.9.1"
    assert "the cluster runs Python 3.9.1" in Head(head.url).notes[0]
    head.ray = "2.9.0"
    with pytest.raises(ClusterError, match=f"runs Ray 2.9.0, here is {ray.__version__}"):
        Head(head.url)


def test_tokens(head: FakeHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head.mode = "token"
    with pytest.raises(ClusterError, match="asks for a token, and there is none here"):
        Head(head.url)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "6" * 32)
    with pytest.raises(ClusterError, match="does not accept the token"):
        Head(head.url)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    head.asked.clear()
    assert Head(head.url).notes == []
    assert dict(head.asked)["/api/authentication_mode"] == "", "the secret is not shown to a head that does not ask"
    assert dict(head.asked)["/api/version"] == f"Bearer {TOKEN}"


def test_a_public_address_without_a_token_is_refused(head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "is_loopback", lambda host: False)
    with pytest.raises(ClusterError, match="everybody who reaches it may run code there"):
        Head(head.url)
    Head(head.url, insecure=True)


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.2", True), ("localhost", True), ("192.0.2.1", False)])
def test_loopback(host: str, loopback: bool) -> None:
    assert address.is_loopback(host) is loopback


def test_something_else_that_answers(head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head.handler, "do_GET", lambda self: self.answer(200, "hello"))
    with pytest.raises(AssayError, match="does not answer as a Ray dashboard"):
        Head(head.url)


# ---- submit --------------------------------------------------------------------------------------------------------


def test_what_is_submitted(head: FakeHead, walk: Path, project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["submit", str(walk), "seed=3", "--id", "one", "--address", head.url, "--detach"]
    assert main(words) == 0, capfd.readouterr().err
    (job,) = head.submitted
    assert job["entrypoint"] == "python assay-launcher.py run assay-spec.yaml --id one"
    assert job["submission_id"] == "one"
    assert not job.get("entrypoint_num_gpus") and not job.get("entrypoint_num_cpus")
    assert job["runtime_env"]["working_dir"].startswith("gcs://")
    assert float(job["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30
    assert f"assay logs --follow one --address {head.url}" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["resources.cpus=8"], "resources.cpus: a trial asks for 8; the largest node has 4"),
        (["resources.gpus=1"], "resources.gpus: a trial asks for 1; the largest node has 0"),
        (["sweep.grid={resources.cpus: [1, 9]}"], "resources.cpus: a trial asks for 9"),
        (["params.drfit=1"], "params.drfit: unknown field"),
        (["store=here"], "store: 'here' is a folder of this machine"),
        (["--id", "../x"], "run id '../x'"),
        (["--id", "known"], "run id 'known' is in use: a job of that name is lost"),
    ],
)
def test_what_is_refused(
    head: FakeHead, walk: Path, project: Path, capfd: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    head.jobs = [job("known", "FAILED")]
    assert main(["submit", str(walk), "--address", head.url, *words]) == 2
    assert sentence in capfd.readouterr().err
    assert head.submitted == []


def test_what_the_cluster_may_grow_to_counts(head: FakeHead, walk: Path, project: Path) -> None:
    (project / "cluster.yaml").write_text(
        "available_node_types: {big: {resources: {CPU: 8, GPU: 1}, max_workers: 2}}\nmax_workers: 2\n"
    )
    words = ["submit", str(walk), "--address", head.url, "--detach", "--cluster", "cluster.yaml", "resources.gpus=1"]
    assert main(words) == 0
    variables = head.submitted[0]["runtime_env"]["env_vars"]
    assert json.loads(variables["ASSAY_NODE_TYPES"]) == [{"count": 2, "CPU": 8, "GPU": 1}]


def job(id: str, status: str, code: int | None = None, entrypoint: str = "python -m service run x") -> dict[str, Any]:
    return {
        "type": "SUBMISSION",
        "submission_id": id,
        "status": status,
        "entrypoint": entrypoint,
        "driver_exit_code": code,
        "start_time": 1000 * len(id),
        "end_time": None if status in ("PENDING", "RUNNING") else 60_000,
        "message": "Job failed, last available logs (truncated to 20,000 chars):\n…",
    }


def test_the_table_of_jobs(head: FakeHead, capfd: pytest.CaptureFixture[str]) -> None:
    head.jobs = [
        job("a", "PENDING"),
        job("bb", "RUNNING"),
        job("ccc", "SUCCEEDED", 0),
        job("dddd", "STOPPED"),
        job("eeeee", "FAILED", 1),
        job("ffffff", "FAILED", 3),
        job("ggggggg", "FAILED", -9),
        job("hhhhhhhh", "FAILED"),
        job("other", "RUNNING", entrypoint="python train.py"),
    ]
    assert main(["runs", "--address", head.url, "--json"]) == 0
    found = [(each["run"], each["status"]) for each in json.loads(capfd.readouterr().out)]
    assert [status for _, status in found] == [
        "pending",
        "running",
        "finished",
        "cancelled",
        "failed",
        "partial",
        "lost",
        "lost",
    ]
    assert "other" not in dict(found)
    assert submission.Head(head.url).run("last").id == "hhhhhhhh"
    assert main(["cancel", "ccc", "--address", head.url]) == 0
    assert "run ccc is not running: finished" in capfd.readouterr().out
    assert main(["logs", "nothing", "--address", head.url]) == 2


# ---- what is shipped -----------------------------------------------------------------------------------------------


def test_what_git_ignores_stays_here(project: Path) -> None:
    for path in (
        "mine.py",
        "pkg/code.py",
        "pkg/big.pt",
        "pkg/keep.pt",
        "data/images.bin",
        "deep/data/x.txt",
        "notes.txt",
        ".venv311/lib/x.py",
        "pkg/__pycache__/code.pyc",
        "assay-store/runs/a/run.json",
    ):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(path)
    (project / ".gitignore").write_text("*.pt\n/data/\n# a comment\n")
    (project / "pkg/.gitignore").write_text("!keep.pt\n")
    (project / ".rayignore").write_text("notes.txt\n")
    shipped = set(packaging.files(project))
    assert {"mine.py", "pkg/code.py", "deep/data/x.txt"} <= shipped
    assert not shipped & {"pkg/big.pt", "data/images.bin", "notes.txt", "assay-store/runs/a/run.json"}
    assert not [path for path in shipped if "__pycache__" in path or ".venv" in path]
    subprocess.run(["git", "init", "-q", "."], check=True)
    assert set(packaging.files(project)) == shipped, "nothing of .git"
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    never = ("assay-store", ".venv", "pkg/__pycache__", "notes.txt")
    assert shipped == {path for path in listed.stdout.split() if not path.startswith(never)}


def test_what_git_ignores_from_above_stays_here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the root of the repository; a folder that is ignored itself goes along as it is asked for."""
    (project.parent / ".gitignore").write_text("*.py\n")
    (project / ".gitignore").write_text("*.pt\n/studies/mine/data/\n/build/\n")
    (project / "studies/.gitignore").parent.mkdir()
    (project / "studies/.gitignore").write_text("/*/secret.txt\n!keep.pt\n")
    for path in ("job.py", "big.pt", "keep.pt", "data/images.bin", "secret.txt", "deep/secret.txt"):
        for folder in (project / "studies/mine", project / "build"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("")
    assert "big.pt" in packaging.files(project / "studies/mine"), "there is no repository"
    subprocess.run(["git", "init", "-q", "."], check=True)
    shipped = set(packaging.files(project / "studies/mine"))
    assert shipped == {"job.py", "keep.pt", "deep/secret.txt"}
    monkeypatch.chdir(project / "studies/mine")
    words = ["git", "ls-files", "--others", "--exclude-standard"]
    assert shipped == set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert set(packaging.files(project / "build")) >= {"job.py", "big.pt", "data/images.bin"}


def test_the_same_files_make_the_same_package(project: Path) -> None:
    (project / "a.py").write_text("1")
    packaging.pack(project, project.parent / "one.zip", b"job: x")
    os.utime(project / "a.py", (0, 0))
    packaging.pack(project, project.parent / "two.zip", b"job: x")
    assert (project.parent / "one.zip").read_bytes() == (project.parent / "two.zip").read_bytes()
    with zipfile.ZipFile(project.parent / "one.zip") as archive:
        assert archive.read(packaging.SPEC) == b"job: x" and archive.read("a.py") == b"1"


def test_too_much_to_ship(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    assert packaging.MOST_BYTES <= DASHBOARD_CLIENT_MAX_SIZE
    with open(project / "large.bin", "wb") as file:
        file.truncate(packaging.MOST_BYTES + 1)
    with pytest.raises(TooLargeError, match="the largest file is large.bin .100 MiB.; at most 100 MiB are allowed"):
        packaging.pack(project, project.parent / "x.zip", None)


def test_a_name_that_is_no_text_is_not_shipped(project: Path) -> None:
    (project / os.fsdecode(b"caf\xe9.txt")).write_text("")
    with pytest.raises(InputError, match=r"must be text; it is 'caf\\\\udce9.txt' .*\.rayignore"):
        packaging.pack(project, project.parent / "x.zip", None)
    (project / ".rayignore").write_text("caf*\n")
    packaging.pack(project, project.parent / "x.zip", None)


@pytest.mark.parametrize("line", ["!", "\\", "a\\"])
@pytest.mark.parametrize("name", packaging.IGNORE_FILES)
def test_a_line_of_an_ignore_file_that_says_nothing(project: Path, name: str, line: str) -> None:
    (project / name).write_text(f"*.pt\n{line}\n")
    with pytest.raises(InputError) as caught:
        packaging.pack(project, project.parent / "x.zip", None)
    assert str(caught.value) == f"{project / name}: Invalid git pattern: {line!r} (remove the line)"


# ---- lost ----------------------------------------------------------------------------------------------------------


def test_runs_of_other_machines_are_watched_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three drivers of another machine: one beats, two do not. All are known after the time of one."""
    from service.execution import history

    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    store = open_store(str(tmp_path))
    for name in ("beats", "still", "stiller"):
        folder = store / "runs" / name
        record = RunRecord(
            id=name,
            job="x",
            name="x",
            status="running",
            created="",
            updated="",
            seconds=0,
            trials=1,
            trials_done=0,
            provenance={},
        )
        write(folder, "run.json", record)
        folder.write_json(LOCK, {**identity(), "place": "elsewhere", "token": name, "beat": 0})
    done = threading.Event()

    def beat() -> None:
        number = 0
        while not done.wait(0.05):
            number += 1
            (store / "runs" / "beats").write_json(
                LOCK, {**identity(), "place": "elsewhere", "token": "beats", "beat": number}
            )

    heart = threading.Thread(target=beat)
    heart.start()
    began = time.monotonic()
    found, _ = history.all_runs(store)
    took = time.monotonic() - began
    done.set()
    heart.join()
    assert {each.id: each.status for each in found} == {"beats": "running", "still": "lost", "stiller": "lost"}
    assert took < 2 * lock.WATCH_BEATS * lock.BEAT_SECONDS + 1
