"""The gallery: pages of many runs that need no server, and that no run can break."""

import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from service import spec
from service.cli import main
from service.execution import runner
from service.execution.runner import Execution
from service.report.gallery import page_name
from tests.service.report.test_report import HOSTILE, Tags


def finished(store_uri: str, **changes: object) -> Path:
    """The folder of a run of the small job."""
    state = runner.start(
        spec.build({"job": "tests.service.pages", "store": store_uri, **changes}), Execution(serial=True)
    )
    assert state.status == "finished", state.failure
    return Path(store_uri) / "runs" / state.id


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with two runs of a job."""
    store = str(tmp_path_factory.mktemp("gallery") / "store")
    for name in ("first", "second"):
        finished(store, name=name, seed=len(name))
    return store


def loaded(page: Path) -> list[Path]:
    """The files that a page shows or leads to."""
    return [(page.parent / unquote(each)).resolve() for each in Tags(page.read_text()).loads if each[:5] != "data:"]


def test_every_link_of_every_page_leads_to_a_file_inside(
    two_runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gallery"
    assert main(["gallery", "--store", two_runs, "--out", str(out)]) == 0
    assert capsys.readouterr() == (f"{out}/index.html\n", "")
    pages, seen = [out / "index.html"], set()
    while pages:
        page = pages.pop()
        seen.add(page)
        for file in loaded(page):
            assert file.is_file() and file.is_relative_to(out)
            if file.suffix == ".html" and "pages" not in file.parts and file not in seen:
                pages.append(file)
    assert [each.relative_to(out).parts[0] for each in sorted(seen)] == ["index.html", "jobs", "runs", "runs"]
    assert not any("script" in Tags(page.read_text()).tags for page in seen)


def test_runs_of_a_job_are_side_by_side(two_runs: str, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    assert main(["gallery", "--store", two_runs, "--out", str(out)]) == 0
    (page,) = (out / "jobs").iterdir()
    tags = Tags(page.read_text())
    assert page.name == "tests.service.pages.html"
    assert tags.tags.count("audio") == 2 and tags.tags.count("img") == 4, "of each a picture, a tone, its spectrogram"
    html = page.read_text()
    assert "<th>height</th><td>1</td><td>1</td>" in html, "a metric has a row"
    assert "<th>seed</th><td>6</td><td>5</td>" in html, "a field that differs has one, the newest run first"


def test_a_gallery_of_some_runs_replaces_an_earlier_one(two_runs: str, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    for names, count in (([], 2), (["last"], 1)):
        assert main(["gallery", *names, "--store", two_runs, "--out", str(out)]) == 0
        assert len(list((out / "runs").iterdir())) == count


def test_a_folder_that_holds_something_else_is_left_alone(
    two_runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.html").write_text("mine")
    (tmp_path / "runs").mkdir()
    assert main(["gallery", "--store", two_runs, "--out", str(tmp_path)]) == 2
    assert "must be empty or an earlier gallery" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text() == "mine" and (tmp_path / "runs").is_dir()


def test_a_damaged_or_hostile_run_is_told_of_and_the_others_are_shown(
    store_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = finished(store_uri, name="good")
    outside = finished(store_uri, name="outside")
    record = json.loads((outside / "run.json").read_text())
    record["artefacts"][0]["path"], record["name"] = "../../../stolen.txt", HOSTILE
    (outside / "run.json").write_text(json.dumps(record))
    (finished(store_uri, name="broken") / "run.json").write_text("{")
    (finished(store_uri, name="no-spec") / "spec.yaml").write_text("{")
    (sound,) = finished(store_uri, name="no-sound").glob("trials/*/sounds/*.wav")
    sound.write_bytes(b"RIFF")
    shutil.copytree(good, good.parent / "copied")
    replace_sound(finished(store_uri, name="high-sound"), "WAV", 30_000_000)
    replace_sound(finished(store_uri, name="other-sound"), "FLAC", 8_000)
    table = finished(store_uri, name="no-days")
    pyarrow.parquet.write_table(pa.table({"day": pa.array([2**30], pa.date32())}), table / "x.parquet")
    entry = {"path": "x.parquet", "kind": "table", "title": "", "bytes": 1, "sha256": ""}
    change(table, artefacts=[entry])
    change(finished(store_uri, name="long-job"), job="x" * 300)
    picture = finished(store_uri, name="no-picture") / "run.json"
    picture.write_text(picture.read_text().replace('"kind": "file"', '"kind": "figure"'))
    out = tmp_path / "gallery"
    assert main(["gallery", "--store", store_uri, "--out", str(out)]) == 0
    told = capsys.readouterr().err
    assert "broken" in told and "is not a name inside the store" in told and "no-spec" in told
    assert f"copied/run.json is damaged: it is of the run {good.name!r}" in told
    assert "is damaged: not a sound" in told and "is no picture" in told
    assert "is damaged: WAV at 30,000,000 Hz" in told and "is damaged: FLAC at 8,000 Hz" in told
    assert "x.parquet is damaged: days=" in told
    text = (out / "index.html").read_text()
    assert "long-job" in text and "long-job" not in told
    assert "good" in text and HOSTILE not in text and not (tmp_path / "stolen.txt").exists()


def change(run: Path, **fields: object) -> None:
    """Forge the record of a run."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, **fields}))


def replace_sound(run: Path, form: str, rate: int) -> None:
    """Put another sound in the place of that of a run."""
    (sound,) = run.glob("trials/*/sounds/*.wav")
    soundfile.write(sound, np.zeros(100), rate, format=form)


def test_every_job_has_a_page_of_its_own() -> None:
    jobs = ["loss_landscape", "my.job", "my.größe", "my.gröze", "my/job", "x" * 300, "x" * 299, "\ud800"]
    names = [page_name(job) for job in jobs]
    assert names[:2] == ["loss_landscape.html", "my.job.html"]
    assert len(set(names)) == len(names) and all(len(name) < 200 for name in names)


def test_an_empty_store(store_uri: str, tmp_path: Path) -> None:
    assert main(["gallery", "--store", store_uri, "--out", str(tmp_path / "gallery")]) == 0
    assert "nothing to show" in (tmp_path / "gallery" / "index.html").read_text()
