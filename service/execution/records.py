"""What is written down about a run and its trials: run.json, trials/<id>/trial.json and trials/<id>/remarks.json.

What is true of a run is what these files say. A run whose record says `running` while nobody holds its lock has lost
its driver: its status is shown as `lost`, and `assay resume` goes on from what is there.
"""

import re
import traceback
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError

from service import json_text
from service.errors import AssayError, InputError, SpecError, StoreError
from service.execution import layout
from service.formatting import encodable
from service.store import Folder

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LAST = "last"  # what commands call the newest run

RunStatus = Literal["running", "finished", "partial", "failed", "cancelled", "lost"]
Record = TypeVar("Record", bound=BaseModel)
TrialStatus = Literal["finished", "partial", "stopped", "failed"]  # partial: some of its cells have no result


def check_id(run_id: str) -> None:
    """SpecError if this cannot be the id of a run: it names a folder, and a job of Ray, and no run by its place."""
    if not RUN_ID.fullmatch(run_id) or run_id == LAST:
        raise SpecError(f"run id {run_id!r}: up to 63 lower-case letters, digits and dashes, and not {LAST!r} alone")


class Failure(BaseModel):
    """Why something failed: who is to blame, one sentence, and the traceback."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cause: Literal["user_error", "error", "worker_lost", "cancelled", "timeout"]
    message: str
    traceback: str = ""


class RecordedError(Exception):
    """An error of another process, as what was recorded of it there."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def describe(error: BaseException) -> Failure:
    """An exception as a record: an AssayError speaks for itself, others are named by their type."""
    if isinstance(error, RecordedError):
        return error.failure
    message = str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {error}"
    cause: Literal["user_error", "error"] = "user_error" if isinstance(error, InputError) else "error"
    return Failure(
        cause=cause,
        message=encodable(message),
        traceback=encodable("".join(traceback.format_exception(error))),
    )


class Artefact(BaseModel):
    """One file of a run: where it is, what it is, and its fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    kind: Literal["table", "figure", "image", "animation", "audio", "array", "page", "file", "model"]
    title: str
    bytes: int
    sha256: str


class TrialRecord(BaseModel):
    """The end of one trial. Written once, whole: a trial without it has to be run (again, from its checkpoint)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    label: str
    status: TrialStatus
    seconds: FiniteFloat
    metrics: dict[str, float]
    artefacts: tuple[Artefact, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # on how it was computed
    failure: Failure | None = None


class TrialRemarks(BaseModel):
    """What a trial has said so far, for its record if it cannot write that itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Provenance = Annotated[dict[str, Any], BeforeValidator(json_text.plain)]
"""what `service.provenance` says of a process that worked on a run"""


class RunRecord(BaseModel):
    """run.json: the state of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    job: str
    name: str
    status: RunStatus
    created: str
    updated: str
    seconds: FiniteFloat
    trials: int
    trials_done: int
    provenance: Provenance  # of the last driver
    earlier: tuple[Provenance, ...] = ()  # of those before it, each once
    artefacts: tuple[Artefact, ...] = ()
    models: tuple[str, ...] = ()  # name/version of each model that was published
    best: dict[str, str] = {}  # variant -> id of its best trial
    warnings: tuple[str, ...] = ()  # of the summary; those of a trial are in its own record
    failure: Failure | None = None

    @property
    def mixed(self) -> bool:
        """Whether drivers with different code worked on it: what they computed need not fit together."""
        parts = ("code", "packages", "python")
        return any(each.get(part) != self.provenance.get(part) for each in self.earlier for part in parts)

    def succeeded_by(self, provenance: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Who worked on it before somebody who goes on with it, each once."""
        known = [*self.earlier, self.provenance]
        return tuple(each for place, each in enumerate(known) if each != provenance and each not in known[:place])

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "partial", "failed")

    @property
    def marked(self) -> frozenset[str]:
        """The trials that are shown as the best: none where each is a variant of its own, without a rival."""
        return frozenset(self.best.values()) if len(self.best) < self.trials else frozenset()


def read_run(folder: Folder) -> RunRecord:
    """The record of the run in this folder. StoreError if it is damaged."""
    return _read(folder, layout.RUN, RunRecord)


def read_trial(folder: Folder) -> TrialRecord | None:
    """The end of the trial in this folder, None if it has not ended."""
    return _read(folder, layout.TRIAL, TrialRecord) if folder.exists(layout.TRIAL) else None


def read_remarks(folder: Folder) -> TrialRemarks:
    """What the trial in this folder has said so far."""
    return _read(folder, layout.REMARKS, TrialRemarks) if folder.exists(layout.REMARKS) else TrialRemarks()


def _read(folder: Folder, name: str, model: type[Record]) -> Record:
    try:
        return model.model_validate(folder.read_json(name))
    except ValidationError as error:
        raise StoreError(f"{folder.uri_of(name)} is damaged: {error.errors()[0]['msg']}") from error


def write(folder: Folder, name: str, record: BaseModel) -> None:
    folder.write_json(name, record.model_dump())
