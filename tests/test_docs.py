"""The pages: "Add a study" runs as it is written, the picture is that of the code, what pages name is there."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from service import catalog, spec
from service.cli.commands import assay, main
from service.planning import plan, yaml_text
from service.store import open_store

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
NEW = ("jobs/noise/", "configs/noise/", "tests/jobs/noise/", "docs/studies/noise.md")
"""what "Add a study" says that its reader is to make"""


def test_add_a_study_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "add_a_study.md").read_text()
    for name, text in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.M | re.S):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "noise.yaml"]) == 0
    assert main(["run", "noise.yaml", "--serial", "--id", "page"]) == 0
    assert main(["jobs", "studies.noise"]) == 0
    store = open_store("assay-store")
    run = store / "runs" / "page"
    tables = [run / "trials" / name / "tables" for name in ("000-short", "001-long")]
    short, long = ([row["accuracy"] for row in each.read_table("accuracy.parquet").to_pylist()] for each in tables)
    assert long[0] > 0.9 > short[0], "the longer training is good, the shorter one is warned of"
    assert long[0] > long[-1] + 0.1, "noise matters"
    assert run.exists("figures/accuracy.png")
    assert "train it for longer" in run.read("report.html").decode()
    assert (store / "models" / "noise-digits").names() == ["1"]


def test_the_spec_of_the_page_about_specs_is_valid() -> None:
    page = (ROOT / "docs" / "spec.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    assert len(plan.trials(spec.build(yaml_text.parse(text)))) == 4, "the page says that it has four trials"


def test_the_picture_is_that_of_the_code() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "structure.py"))["picture"]()
    current = (ROOT / "docs" / "structure.svg").read_text(encoding="utf-8")
    assert drawn == current, "rooms or imports have changed: `make docs` draws docs/structure.svg anew"


def test_every_study_has_its_page_its_row_and_its_specs() -> None:
    readme = (ROOT / "README.md").read_text()
    navigation = (ROOT / "mkdocs.yml").read_text()
    for study in catalog.names():
        page = (ROOT / "docs" / "studies" / f"{study}.md").read_text()
        for kind in ("about", "specs", "parameters"):
            assert f"<!-- {kind} of {study} -->" in page, f"the page of {study} does not show its {kind}"
        assert f"docs/studies/{study}.md" in readme, f"README's table has no row of {study}"
        assert f"studies/{study}.md" in navigation, f"mkdocs.yml does not list the page of {study}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_pages_name_exist(page: Path) -> None:
    for name in re.findall(r"`((?:configs|tests|docs|service|serving|jobs)/[\w/.-]*)`", page.read_text()):
        if not name.startswith(NEW):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_pages_exist(page: Path) -> None:
    commands = re.findall(r"^(?:[A-Z_]+=\S+ )?assay ([a-z]+)", page.read_text(), re.M)
    commands += re.findall(r"`assay ([a-z]+)", page.read_text())
    assert set(commands) <= set(assay.commands), page.name
    for spec_file, overrides in re.findall(r"^assay (?:run|check) (configs/\S+) *([^#\n]*)", page.read_text(), re.M):
        fields = [word for word in shlex.split(overrides) if "=" in word and not word.startswith("-")]
        spec.load(str(ROOT / spec_file), fields)
