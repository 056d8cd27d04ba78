"""Where everything of a run lies in the store. Nobody else knows a path.

<store>/runs/<run>/
    spec.yaml  run.json  metrics.parquet  manifest.json  report.html  log.jsonl  lock.json  lock.taken  cancel
    trials/<trial>/     a trial's own folder: trial.json, metrics.parquet, remarks.json, checkpoints/, cells/ and its
                        artefacts
    cells/              cells that the trials of a sweep share
    tune/               what Ray keeps while it works
    tables/ figures/ samples/ sounds/ pages/ files/      artefacts, in the folder of the run and of each trial
    models/             models that a trial saved and that are not published yet
"""

from dataclasses import dataclass

from service.store import Folder

SPEC = "spec.yaml"
RUN = "run.json"
TRIAL = "trial.json"
REMARKS = "remarks.json"
METRICS = "metrics.parquet"
MANIFEST = "manifest.json"
REPORT = "report.html"
LOG = "log.jsonl"
LOCK = "lock.json"
TAKE_OVER = "lock.taken"
CANCEL = "cancel"

RUNS = "runs"
TRIALS = "trials"
TUNE = "tune"
CELLS = "cells"
CHECKPOINTS = "checkpoints"

TABLE = "tables/{}.parquet"
ARRAY = "tables/{}.npy"
FIGURE = "figures/{}.png"
IMAGE = "samples/{}.png"
ANIMATION = "samples/{}.gif"
AUDIO = "sounds/{}.wav"
PAGE = "pages/{}.html"
FILE = "files/{}"
MODEL = "models/{}.safetensors"


def runs(store: Folder) -> Folder:
    """The folder of all runs."""
    return store / RUNS


def run(store: Folder, run_id: str) -> Folder:
    """The folder of a run."""
    return runs(store) / run_id


def trials(run_folder: Folder) -> Folder:
    """The folder of all trials of a run."""
    return run_folder / TRIALS


def trial(run_folder: Folder, trial_id: str) -> Folder:
    """The folder of a trial."""
    return trials(run_folder) / trial_id


def tune(run_folder: Folder) -> Folder:
    """What Ray keeps while it works; nothing in it is needed afterwards."""
    return run_folder / TUNE


def cells(folder: Folder, name: str, content: str) -> Folder:
    """The cells of a map. folder: of a trial, or of the run. content: a digest of what they have in common."""
    return folder / CELLS / name / content


def checkpoint(phase: str) -> str:
    """The checkpoint of a phase of a trial."""
    return f"{CHECKPOINTS}/{phase}.safetensors"


@dataclass(frozen=True)
class Place:
    """An artefact's path, as seen from the run's folder, in parts. trial: None for one of the whole run."""

    trial: str | None
    path: str

    @property
    def stem(self) -> str:
        """Its name without folder and ending."""
        return self.path.rpartition("/")[2].rpartition(".")[0]

    @property
    def ending(self) -> str:
        """What its name ends in, without the dot."""
        return self.path.rpartition(".")[2]


def place(path: str) -> Place:
    """Take the path of an artefact apart."""
    first, _, rest = path.partition("/")
    if first != TRIALS:
        return Place(None, path)
    trial_id, _, inner = rest.partition("/")
    return Place(trial_id, inner)


def of_trial(trial_id: str, path: str) -> str:
    """The path of a trial's artefact as seen from the folder of the run."""
    return f"{TRIALS}/{trial_id}/{path}"
