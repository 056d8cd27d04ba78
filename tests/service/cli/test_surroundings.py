"""Where a command is given: folders named as Assay's packages, terminals that lack characters, readers that leave."""

import os
import pickle
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from ray import cloudpickle

from service.cli import main
from service.cluster import import_path, launcher, packaging
from service.execution import history
from service.store import open_store
from tests.processes import ended, started

ROOT = Path(__file__).parents[3]
PACKAGES = ("jobs", "service", "serving")
OWN_JOB = """
import time
from pydantic import BaseModel

class Params(BaseModel):
    fails: bool = False

def run(params, run):
    for step in range(200):
        print("→ é")
    run.log(step=1, height=1.0)
    assert not params.fails
"""
SPEC = "job: own.étude\nstore: store\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a job of the user's own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "étude.py").write_text(OWN_JOB)
    (tmp_path / "spec.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# what is no package hides less
@pytest.fixture(params=["__init__.py", pytest.param("sbatch.sh", marks=pytest.mark.slow)])
def hiding(folder: Path, request: pytest.FixtureRequest) -> Path:
    """Besides, folders that are named as Assay's packages: packages themselves, or not."""
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / request.param).write_text("")
    return folder


def python(*words: str, path: str = str(ROOT), **environment: str) -> "AbstractContextManager[subprocess.Popen[str]]":
    return started(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def printed(*words: str, code: int = 0, **surroundings: str) -> str:
    """What `python WORDS…` prints until it ends with this exit code."""
    with python(*words, **surroundings) as process:
        text = ended(process, code)
    assert "Traceback" not in text, text
    return text


# ---- folders ---------------------------------------------------------------------------------------------------------

MAIN = "import sys; from service.cli import main"
ASSAY = ("-P", "-c", f"{MAIN}; sys.exit(main())")  # as the command that is installed


def test_own_folders_hide_nothing(hiding: Path) -> None:
    said = printed("-P", "-c", f"{MAIN}; sys.exit(main(['jobs']) or main(['run', 'spec.yaml', '--serial']))")
    assert "deep_thinking" in said and "finished: 1 of 1 trials" in said


def test_nor_in_a_worker(hiding: Path) -> None:
    """Ray puts the current folder before all others there."""
    hook = pickle.dumps(cloudpickle.dumps(import_path.runtime_env()["worker_process_setup_hook"]))
    code = f"""
import pickle, sys
sys.path.insert(0, {str(hiding)!r})
pickle.loads(pickle.loads({hook!r}))()
import jobs.deep_thinking, service.spec, serving.http, own.étude
assert {str(hiding)!r} in sys.path
"""
    printed("-c", code)


@pytest.mark.slow  # the same in a worker of Ray, which takes half a minute to start on a busy machine
def test_nor_on_ray(hiding: Path) -> None:
    assert "finished: 1 of 1 trials" in printed(*ASSAY, "run", "spec.yaml", "--cpus", "1")


def test_where_no_name_is_taken_workers_start_as_always(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert import_path.runtime_env() == {}
    monkeypatch.chdir(ROOT)
    assert import_path.runtime_env() == {}


def test_nor_in_a_job_that_was_submitted(hiding: Path) -> None:
    """The folder travels along, and Ray puts it first there as well."""
    path = hiding / packaging.LAUNCHER
    path.write_bytes(Path(launcher.__file__).read_bytes())
    both = os.pathsep.join([str(hiding), str(ROOT)])
    assert "finished: 1 of 1 trials" in printed(str(path), "run", "spec.yaml", "--serial", path=both)


def test_a_head_whose_python_has_no_assay(folder: Path) -> None:
    said = printed("-I", "-S", launcher.__file__, "run", "spec.yaml", code=2)
    assert said.startswith(
        f"assay: the head runs jobs with {sys.executable}, which cannot import Assay: No module named"
    )


# ---- terminals and pipes ---------------------------------------------------------------------------------------------


def test_a_terminal_that_lacks_characters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run says, what the store lists, and what the job itself prints, in one process."""
    one = ["run", "spec.yaml", "--serial", "--id", "one"]
    two = ["run", "spec.yaml", "--serial", "--id", "two", "--raw"]
    code = f"{MAIN}; sys.exit(main({one}) or main(['runs', '--store', 'store']) or print('raw') or main({two}))"
    said = printed("-c", code, PYTHONIOENCODING="ascii")
    lines, raw = said.split("raw\n", 1)
    assert said.isascii() and "own-tude: started" in lines and "own.?tude" in lines
    assert "? ?" in raw and "? ?" not in lines
    assert main(["logs", "one", "--store", "store"]) == 0 and "→ é" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "fails", "status", "code"),
    [
        ((), False, "finished", 0),
        pytest.param((), True, "failed", 1, marks=pytest.mark.slow),
        pytest.param(("--raw",), False, "finished", 0, marks=pytest.mark.slow),
        (("--raw",), True, "failed", 1),
    ],
)
def test_a_reader_that_leaves(folder: Path, options: tuple[str, ...], fails: bool, status: str, code: int) -> None:
    words = ("run", "spec.yaml", f"params.fails={str(fails).lower()}", "--serial", "--id", "one", *options)
    with python("-m", "service", *words) as driver:
        assert driver.stdout is not None and driver.stderr is not None
        driver.stdout.close()
        errors = driver.stderr.read()
        assert driver.wait() == code and "Traceback" not in errors and "Exception ignored" not in errors, errors
    assert history.load(open_store("store") / "runs" / "one").status == status
