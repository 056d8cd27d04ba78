"""The command line, as a user meets it: words in, lines and exit codes out."""

import json
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from service import spec
from service.cli.commands import main
from service.planning import plan

WALK = "job: tests.service.walk\nstore: {store}\n"


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    path = tmp_path / "walk.yaml"
    path.write_text(WALK.format(store=tmp_path / "store"))
    return path


def test_whoever_retries_says_which_run(walk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without an id each try would be a new run."""
    assert main(["run", str(walk), "--serial", "--again"]) == 2
    assert "--again must have the --id of the run" in capfd.readouterr().err


def test_run_show_compare_logs(walk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "store")

    def said(*words: str) -> str:
        assert main([*words, "--store", store]) == 0
        return capfd.readouterr().out

    assert main(["run", str(walk), "--serial", "--id", "one", "seed=1"]) == 0
    first = capfd.readouterr().out
    assert "finished: 1 of 1 trials" in first and "one/report.html" in first and "assay show one" in first
    assert main(["run", str(walk), "--serial", "--id", "two", "seed=2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["status"] == "finished"

    runs = json.loads(said("runs", "--json"))
    assert [(run["run"], run["status"]) for run in runs] == [("one", "finished"), ("two", "finished")]
    shown = json.loads(said("show", "last", "--json"))
    assert shown["id"] == "two" and shown["ended_trials"][0]["status"] == "finished"
    assert "finished" in said("show", "one")
    compared = json.loads(said("compare", "one", "two", "--json"))
    assert compared["spec"] == {"seed": [1, 2]}
    assert len(set(compared["metrics"]["height"])) == 2
    assert "seed" in said("compare", "last~1", "last")
    assert main(["show", "last~2", "--store", store]) == 2 and "it has 2" in capfd.readouterr().err
    assert "trial 000: finished" in said("logs", "one")
    (newest, older) = json.loads(said("models", "--json"))[::-1]
    assert (newest["model"], older["model"]) == ("walk/2", "walk/1")
    assert json.loads(said("models", "walk/1"))["run"] == "one"
    assert "not running" in said("cancel", "one")
    resumed = json.loads(said("resume", "one", "--serial", "--json"))
    assert resumed["models"] == ["walk/1"], "resuming what is done publishes nothing twice"


@pytest.mark.parametrize(
    ("code", "left_out"),
    [
        ("import service.cli.commands", "torch ray matplotlib"),  # commands that look at a store
        ("import service.cli.live, service.cluster.start", "torch ray.tune"),  # loaded while Ray starts
        ("import service.cluster.submission, service.planning.plan", "torch ray.tune"),  # those that ask a cluster
    ],
)
def test_what_is_not_needed_is_not_loaded(code: str, left_out: str) -> None:
    """So that commands answer seconds earlier."""
    code = f"import sys\n{code}\nprint(set({left_out.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_partial_and_failed_have_their_exit_codes(walk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(walk), "--serial", "params.fail_at=2"]) == 1
    assert capfd.readouterr().err.splitlines()[0] == "assay: the walk fails at step 2"
    partial = walk.read_text() + "sweep: {grid: {params.fail_at: [2, null]}}\n"
    walk.write_text(partial)
    assert main(["run", str(walk), "--serial"]) == 3


@pytest.mark.parametrize(("drifts", "whose"), [("[0, 1]", "drift=0, drift=1"), ("[0, 1, 2, 3]", "4 of 4 trials")])
def test_warnings_are_shown_where_a_run_ends_and_is_looked_at(
    walk: Path, tmp_path: Path, drifts: str, whose: str, capfd: pytest.CaptureFixture[str]
) -> None:
    walk.write_text(walk.read_text() + f"params: {{warn_at: 2}}\nsweep: {{grid: {{params.drift: {drifts}}}}}\n")
    assert main(["run", str(walk), "--serial"]) == 0
    ended = capfd.readouterr().out
    assert main(["show", "last", "--store", str(tmp_path / "store")]) == 0
    for text in (ended, capfd.readouterr().out):
        assert f"  warning the walk warns at step 2 ({whose})\n" in text


@pytest.mark.parametrize(
    ("sweep", "marks"),
    [("grid: {params.drift: [0, 1]}", 1), ("variants: {still: {params.drift: 0}, moved: {params.drift: 1}}", 0)],
)
def test_the_best_trial_is_marked_where_it_has_rivals(
    walk: Path, tmp_path: Path, sweep: str, marks: int, capfd: pytest.CaptureFixture[str]
) -> None:
    walk.write_text(walk.read_text() + f"sweep: {{metric: height, {sweep}}}\n")
    assert main(["run", str(walk), "--serial"]) == 0
    capfd.readouterr()
    assert main(["show", "last", "--store", str(tmp_path / "store")]) == 0
    assert capfd.readouterr().out.count("(best)") == marks


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "absent.yaml"), "cannot read the spec absent.yaml"),
        (("run", "{walk}", "--serial", "params.drfit=1"), "params.drfit: unknown field"),
        (("run", "{walk}", "--serial", "store={file}/x"), "{file}"),
        (("check", "{walk}", "job=deep_thinkin"), "unknown job 'deep_thinkin'"),
        (("jobs", "deep_thinkin"), "did you mean 'deep_thinking'?"),
        (("show", "nothing", "--store", "{store}"), "no run 'nothing'"),
        (("models", "nothing", "--store", "{store}"), "nothing"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    walk: Path, tmp_path: Path, words: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    names = {"walk": str(walk), "file": str(tmp_path / "file"), "store": str(tmp_path / "store")}
    (tmp_path / "file").write_text("")
    assert main([word.format(**names) for word in words]) == 2
    out, err = capfd.readouterr()
    assert sentence.format(**names) in err
    assert "Traceback" not in err and len(err.splitlines()) <= 2
    assert not (tmp_path / "store" / "runs").exists()


def test_ray_out_of_reach_is_noticed_at_once(
    walk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert main(["run", str(walk)]) == 2
    assert f"nobody answers at the Ray address '{address}'" in capfd.readouterr().err
    assert not (walk.parent / "store" / "runs").exists()
    assert main(["run", str(walk), "params.pace.stepz=1"]) == 2
    assert "params.pace.stepz: unknown field" in capfd.readouterr().err, "the user's own mistake first"


def test_check_and_jobs_need_nothing(walk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(walk)]) == 0
    assert "is valid: job tests.service.walk, 1 trial(s), each on 1 CPU" in capsys.readouterr().out
    assert main(["check", str(walk), "job=tests.service.grid", "params={cells: 3}"]) == 0
    assert "1 trial(s), each task of theirs on 1 CPU" in capsys.readouterr().out
    assert main(["check", str(walk), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == ["tests-service-walk"]
    assert main(["jobs", "tests.service.walk"]) == 0
    out = capsys.readouterr().out
    assert "params.pace.steps: whole number; > 0, ≤ 100,000; default 10\n    steps of the walk" in out
    assert main(["jobs"]) == 0
    assert "deep_thinking" in capsys.readouterr().out


def configs() -> list[Path]:
    others = ("serve", "ray")  # settings of the endpoints, and clusters
    return [path for path in Path("configs").rglob("*.yaml") if not path.name.startswith(others)]


def test_every_config_is_valid() -> None:
    assert all(plan.trials(spec.load(str(path))) for path in configs())


@pytest.mark.slow  # what a study's estimate says is tested beside it
def test_every_config_has_an_estimate() -> None:
    for path in configs():
        assert main(["check", str(path)]) == 0, path


def test_the_command_that_is_installed_is_this_one() -> None:
    entry = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]["assay"]
    assert EntryPoint("assay", entry, "console_scripts").load() is main
