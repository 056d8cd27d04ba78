"""The report of a run, put together from what its folder holds."""

import io

import pyarrow.parquet

from service.execution import history
from service.execution.records import Artefact, RunRecord
from service.formatting import duration
from service.planning import yaml_text
from service.report.rendering import ReportPage, render
from service.spec import JobSpec
from service.store import Folder

SHOWN_ROWS = 100
MIME = {"png": "image/png", "gif": "image/gif"}


def render_run(folder: Folder, state: RunRecord, job_spec: JobSpec) -> bytes:
    """One self-contained HTML page: the summary's figures and tables first, then those of the best trials."""
    ends = history.trials(folder)
    best = set(state.best.values())
    shown = [each for each in state.artefacts if _is_shown(each, best)]
    shown.sort(key=lambda each: each.path.startswith("trials/"))
    failures = [(each.label, each.failure) for each in ends if each.failure]
    if state.failure:
        failures.insert(0, ("run", state.failure))
    labels = {each.id: each.label for each in ends}
    return render(
        ReportPage(
            title=job_spec.title,
            run_id=state.id,
            status=state.status,
            spec_yaml=yaml_text.dump(job_spec.tree()),
            facts=[
                ("job", state.job),
                ("trials", f"{state.trials_done} of {state.trials}"),
                ("took", duration(state.seconds)),
                ("started", state.created),
                *[("model", name) for name in state.models],
            ],
            figures=[
                (_title(each, labels), MIME[each.path.rpartition(".")[2]], folder.read(each.path))
                for each in shown
                if each.kind in ("figure", "image", "animation")
            ],
            tables=[_table(folder, each, labels) for each in shown if each.kind == "table"],
            links=[
                (_title(each, labels), each.path, _file_facts(each)) for each in shown if each.kind in ("page", "file")
            ],
            trials=[(each.label, each.status, each.id in best, duration(each.seconds), each.metrics) for each in ends],
            errors=[(name, failure.message, failure.traceback) for name, failure in failures],
            provenance=state.provenance,
        )
    )


def _is_shown(artefact: Artefact, best: set[str]) -> bool:
    """Everything of the summary; of the trials only the best ones."""
    parts = artefact.path.split("/")
    return artefact.kind not in ("array", "model") and (parts[0] != "trials" or parts[1] in best)


def _title(artefact: Artefact, labels: dict[str, str]) -> str:
    parts = artefact.path.split("/")
    name = artefact.title or parts[-1].rpartition(".")[0].replace("_", " ")
    return f"{name} ({labels[parts[1]]})" if parts[0] == "trials" else name


def _table(folder: Folder, artefact: Artefact, labels: dict[str, str]) -> tuple[str, list[str], list[list[object]]]:
    table = pyarrow.parquet.read_table(io.BytesIO(folder.read(artefact.path)))
    title = _title(artefact, labels)
    if len(table) > SHOWN_ROWS:
        title += f", the first {SHOWN_ROWS} of {len(table):,} rows"
    rows = [list(row.values()) for row in table.slice(0, SHOWN_ROWS).to_pylist()]
    return title, table.column_names, rows


def _file_facts(artefact: Artefact) -> str:
    """Format and size of a file, e.g. "vtp, 158,180 bytes"."""
    return f"{artefact.path.rpartition('.')[2]}, {artefact.bytes:,} bytes"
