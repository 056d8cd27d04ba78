"""The report of a run, put together from what its folder holds."""

import io

import soundfile

from service.errors import StoreError
from service.execution import history, layout
from service.execution.records import Artefact, RunRecord
from service.formatting import duration
from service.handle.artefacts import HIGHEST_RATE
from service.report.rendering import Link, Picture, ReportPage, Sound, Table
from service.report.spectrogram import spectrogram_png
from service.store import Folder, plain_rows

SHOWN_ROWS = 100
MIME = {"png": "image/png", "gif": "image/gif", "wav": "audio/wav"}
MOST_AUDIO_BYTES = 8 << 20  # of a sound that is part of the page; a longer one is a link


def of_run(folder: Folder, state: RunRecord) -> ReportPage:
    """The summary's figures, sounds and tables first, then those of the best trials."""
    ends = history.trials(folder)
    best = set(state.best.values())
    shown = [each for each in state.artefacts if _is_shown(each, best)]
    shown.sort(key=lambda each: layout.place(each.path).trial is not None)
    failures = [(each.label, each.failure) for each in ends if each.failure]
    if state.failure:
        failures.insert(0, ("run", state.failure))
    labels = {each.id: each.label for each in ends}
    sounds = [each for each in shown if each.kind == "audio"]
    long = [each for each in sounds if folder.size(each.path) > MOST_AUDIO_BYTES]
    return ReportPage(
        title=state.name,
        run_id=state.id,
        status=state.status,
        spec_yaml=folder.read(layout.SPEC).decode(errors="replace"),
        facts=[
            ("job", state.job),
            ("trials", f"{state.trials_done} of {state.trials}"),
            ("took", duration(state.seconds)),
            ("started", state.created),
            *[("model", name) for name in state.models],
            *[("computed", text) for text in dict.fromkeys(text for each in ends for text in each.notes)],
        ],
        figures=_pictures(folder, shown, labels),
        sounds=[_sound(folder, each, labels) for each in sounds if each not in long],
        tables=[_table(folder, each, labels) for each in shown if each.kind == "table"],
        links=[
            Link(_title(each, labels), each.path, _file_facts(each))
            for each in shown
            if each.kind in ("page", "file") or each in long
        ],
        warnings=history.warnings(state, ends),
        trials=[
            (each.label, each.status, each.id in state.marked, duration(each.seconds), each.metrics) for each in ends
        ],
        errors=[(name, failure.message, failure.traceback) for name, failure in failures],
        provenance=state.provenance | {"earlier": state.earlier},
    )


def _pictures(folder: Folder, shown: list[Artefact], labels: dict[str, str]) -> list[Picture]:
    """A picture of a trial that the summary has as well is there once."""
    pictures: dict[bytes, Picture] = {}
    for each in shown:
        if each.kind in ("figure", "image", "animation"):
            picture = _picture(folder, each, labels)
            pictures.setdefault(picture.content, picture)
    return list(pictures.values())


def _is_shown(artefact: Artefact, best: set[str]) -> bool:
    """Everything of the summary; of the trials only the best ones."""
    trial = layout.place(artefact.path).trial
    return artefact.kind not in ("array", "model") and (trial is None or trial in best)


def _name(artefact: Artefact) -> str:
    return layout.place(artefact.path).stem.replace("_", " ")


def _title(artefact: Artefact, labels: dict[str, str]) -> str:
    trial, title = layout.place(artefact.path).trial, artefact.title or _name(artefact)
    return title if trial is None else _of_trial(labels.get(trial, trial), title)


def _of_trial(label: str, text: str) -> str:
    return f"{text} ({label})"


def _picture(folder: Folder, artefact: Artefact, labels: dict[str, str]) -> Picture:
    mime = MIME.get(layout.place(artefact.path).ending)
    if mime is None:
        raise StoreError(f"{folder.uri_of(artefact.path)} is no picture")
    return Picture(_title(artefact, labels), _name(artefact), artefact.path, mime, folder.read(artefact.path))


def _sound(folder: Folder, artefact: Artefact, labels: dict[str, str]) -> Sound:
    wav = folder.read(artefact.path)
    try:
        with soundfile.SoundFile(io.BytesIO(wav)) as file:
            rate = file.samplerate
            if file.format != "WAV" or rate > HIGHEST_RATE:  # other formats may hold a thousand times their size
                raise StoreError(f"{folder.uri_of(artefact.path)} is damaged: {file.format} at {rate:,} Hz")
            samples = file.read(always_2d=True)  # (n, channels)
    except soundfile.LibsndfileError as error:
        raise StoreError(f"{folder.uri_of(artefact.path)} is damaged: not a sound") from error
    return Sound(
        _title(artefact, labels),
        _name(artefact),
        artefact.path,
        MIME["wav"],
        wav,
        spectrogram_png(samples.mean(axis=1), rate),
        len(samples) / rate,
    )


def _table(folder: Folder, artefact: Artefact, labels: dict[str, str]) -> Table:
    table = folder.read_table(artefact.path)
    title = _title(artefact, labels)
    if len(table) > SHOWN_ROWS:
        title += f", the first {SHOWN_ROWS} of {len(table):,} rows"
    rows = plain_rows(table.slice(0, SHOWN_ROWS), folder.uri_of(artefact.path))
    return Table(title, _name(artefact), table.column_names, [list(row.values()) for row in rows])


def _file_facts(artefact: Artefact) -> str:
    """Format and size of a file, e.g. "vtp, 158,180 bytes"."""
    return f"{layout.place(artefact.path).ending}, {artefact.bytes:,} bytes"
