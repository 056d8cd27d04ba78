"""Many runs as web pages: all of them, the report of each, and those of a job side by side.

    index.html                what there is, newest first
    jobs/<job>.html           figures, sounds, tables and metrics of a job's runs in columns
    runs/<run>/report.html    and beside it the files that these pages show

The pages are plain files without scripts: they can be opened from a disk, or put on any web server.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from service.errors import AssayError, StoreError
from service.execution import history, layout
from service.execution.history import Difference
from service.execution.records import RunRecord
from service.formatting import encodable
from service.report import contents, rendering
from service.report.rendering import Picture, ReportPage, Sound, Table
from service.store import Folder

INDEX = "index.html"
JOBS = "jobs"
NAME_CHARACTERS = 100  # of a job in the name of its page
MARK = b'<meta name="generator" content="assay gallery">'
"""in the index: what was written here before may be replaced"""

Shown = TypeVar("Shown", Picture, Sound, Table)
Row = tuple[str, list[list[Shown]]]
"""a name, and in each run what is called so: one for each of its best trials"""


@dataclass(frozen=True)
class Exhibit:
    """A run of the gallery: its folder in the store, its record, and what its report shows, without the contents."""

    folder: Folder
    state: RunRecord
    page: ReportPage


@dataclass(frozen=True)
class SideBySide:
    """The runs of a job in columns."""

    job: str
    exhibits: Sequence[Exhibit]
    fields: Sequence[Difference]
    """where their specs differ"""
    metrics: Sequence[Difference]
    """of the best trial of each variant"""
    figures: "Sequence[Row[Picture]]"
    sounds: "Sequence[Row[Sound]]"
    tables: "Sequence[Row[Table]]"


def write(runs: Sequence[tuple[Folder, RunRecord]], out: Folder) -> list[str]:
    """Write the gallery of some runs. Returns a sentence about each run that cannot be shown.

    out: a folder that is empty, absent, or an earlier gallery, which is replaced. StoreError if it is anything else.
    """
    if out.exists(INDEX) and MARK not in out.read(INDEX) or not out.exists(INDEX) and out.names():
        raise StoreError(f"{out.uri} must be empty or an earlier gallery; it holds something else")
    out.write(INDEX, MARK)  # also one that is interrupted may be replaced
    for earlier in (JOBS, layout.RUNS):
        out.delete(earlier)
    exhibits, damaged = [], []
    for folder, state in runs:
        try:
            exhibits.append(_exhibit(folder, state, layout.run(out, state.id)))
        except AssayError as error:
            damaged.append(f"{state.id}: {error}")
    exhibits.sort(key=lambda each: each.state.created, reverse=True)
    names = sorted({each.state.job for each in exhibits})
    jobs = {job: [each for each in exhibits if each.state.job == job] for job in names}
    for job, group in jobs.items():
        html = rendering.filled("side_by_side.html", page=side_by_side(job, group), verdicts=rendering.VERDICTS)
        out.write(f"{JOBS}/{page_name(job)}", html)
    pages = {job: f"{JOBS}/{page_name(job)}" for job in jobs}
    out.write(INDEX, rendering.filled("gallery.html", mark=MARK.decode(), jobs=jobs, pages=pages, damaged=damaged))
    return damaged


def page_name(job: str) -> str:
    """The file of a job's page, also where the job is an import path; no two jobs have the same."""
    name = re.sub(r"[^A-Za-z0-9_.]", "-", job)[:NAME_CHARACTERS]
    return f"{name}.html" if name == job else f"{name}-{hashlib.sha256(encodable(job).encode()).hexdigest()[:8]}.html"


def side_by_side(job: str, exhibits: Sequence[Exhibit]) -> SideBySide:
    """What the runs of a job have under the same names, in rows."""
    fields, metrics = history.compare([each.folder for each in exhibits])
    pages = [each.page for each in exhibits]
    return SideBySide(
        job,
        exhibits,
        fields,
        metrics,
        _rows([page.figures for page in pages]),
        _rows([page.sounds for page in pages]),
        _rows([page.tables for page in pages]),
    )


def _rows(columns: "Sequence[Sequence[Shown]]") -> "list[Row[Shown]]":
    names = dict.fromkeys(each.name for column in columns for each in column)
    return [(name, [[each for each in column if each.name == name] for column in columns]) for name in names]


def _exhibit(folder: Folder, state: RunRecord, out: Folder) -> Exhibit:
    """The report of a run, and the files that it or another page shows, written below `out`."""
    history.spec_tree(folder)  # which is compared with those of others
    page = contents.of_run(folder, state)
    out.write(layout.REPORT, rendering.render(page))
    for figure in page.figures:
        out.write(figure.path, figure.content)
    for sound in page.sounds:
        out.write(sound.path, sound.content)
        out.write(sound.spectrogram_path, sound.spectrogram)
    for link in page.links:
        out.write(link.path, folder.read(link.path))
    figures = [replace(each, content=b"") for each in page.figures]
    sounds = [replace(each, content=b"", spectrogram=b"") for each in page.sounds]
    return Exhibit(folder, state, replace(page, figures=figures, sounds=sounds))
