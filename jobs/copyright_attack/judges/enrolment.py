"""Judges made ready: those that are there, trained where they learn, with songs enrolled; and what they say of sounds.

Fingerprints and comparisons are cells of the run. Thresholds are calibrated on songs that are not enrolled.
"""

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.data.music.base import Songs
from jobs.common.metrics.detection import Threshold, threshold_at
from jobs.copyright_attack.judges.audfprint import AudfprintJudge
from jobs.copyright_attack.judges.base import Judge, Verdict
from jobs.copyright_attack.judges.chromaprint import AcoustidJudge, ChromaprintJudge
from jobs.copyright_attack.judges.dejavu import DejavuJudge
from jobs.copyright_attack.judges.neural.judge import NeuralJudge
from jobs.copyright_attack.judges.neural.training import trained
from jobs.copyright_attack.judges.params import JudgesParams
from jobs.copyright_attack.judges.wang import WangJudge
from service.errors import InputError
from service.run import Run

SLICE = 5  # sounds in a cell
OTHERS: Mapping[str, type[Judge]] = {
    each.name: each for each in (ChromaprintJudge, AcoustidJudge, AudfprintJudge, DejavuJudge, WangJudge)
}


@dataclass(frozen=True)
class Enrolment:
    """Judges with the same songs enrolled, by name."""

    judges: Mapping[str, Judge]
    seconds: Mapping[str, float]
    """of processor time that a second of the songs took, by judge"""


def chosen(params: JudgesParams, run: Run) -> dict[str, Judge]:
    """Those judges of a spec that are there, by name; a warning for each that is not. The neural one is trained here.

    InputError if none is there.
    """
    judges: dict[str, Judge] = {}
    for name in params.names:
        if name == "neural":
            judges[name] = NeuralJudge(run.reserved(trained, params.neural, None, name))
            continue
        judge = OTHERS[name]()
        if (reason := judge.available()) is None:
            judges[name] = judge
        else:
            run.warn(f"the judge {name} is left out: {reason}")
    if not judges:
        raise InputError(
            f"none of the judges {', '.join(params.names)} is here", hint="dejavu and wang need nothing besides Assay"
        )
    return judges


def enrol(judges: Mapping[str, Judge], songs: Songs, run: Run) -> Enrolment:
    """Enrol songs. judges: without songs. One that fails on a song is left out, and the run ends as partial."""
    cells: list[dict[str, Any]] = [{"judge": name, "song": place} for name in judges for place in range(len(songs))]
    shared = (dict(judges), arrays(songs.sounds), songs.rate)
    results = run.map(fingerprint_cell, cells, shared=shared, name="enrol")
    enrolled, seconds = dict(judges), dict.fromkeys(judges, 0.0)
    for cell, result in zip(cells, results, strict=True):
        if result is None:
            enrolled.pop(cell["judge"], None)
        elif cell["judge"] in enrolled:
            enrolled[cell["judge"]].add(songs.names[cell["song"]], result["fingerprint"])
            seconds[cell["judge"]] += result["seconds"]
    return Enrolment(enrolled, {name: seconds[name] / songs.seconds for name in enrolled})


def scores_of(enrolment: Enrolment, sounds: Sequence[Tensor], rate: int, run: Run, name: str) -> dict[str, np.ndarray]:
    """How like each sound every enrolled song is: float64 (sounds, songs) by judge; NaN where a cell failed.

    sounds: float (samples,) each. name: of the cells, of lower-case letters, digits and dashes.
    """
    cells: list[dict[str, Any]] = [
        {"judge": judge, "first": first, "last": min(first + SLICE, len(sounds))}
        for judge in enrolment.judges
        for first in range(0, len(sounds), SLICE)
    ]
    shared = (dict(enrolment.judges), arrays(sounds), rate)
    results = run.map(scores_cell, cells, shared=shared, name=name)
    scores = {each: np.full((len(sounds), len(judge.songs)), np.nan) for each, judge in enrolment.judges.items()}
    for cell, result in zip(cells, results, strict=True):
        if result is not None:
            scores[cell["judge"]][cell["first"] : cell["last"]] = result
    return scores


def verdicts_of(enrolment: Enrolment, scores: Mapping[str, np.ndarray]) -> dict[str, list[Verdict | None]]:
    """What each judge says of each sound by its own rule; None where its cell failed. scores: of `scores_of`."""
    return {
        name: [None if np.isnan(row).any() else judge.verdict(row) for row in scores[name]]
        for name, judge in enrolment.judges.items()
    }


def calibrated(scores: Mapping[str, np.ndarray], rate: float) -> dict[str, Threshold]:
    """What the best score of a sound has to exceed, by judge. scores: of songs that are not enrolled, of `scores_of`.

    rate: of false alarms. A judge that failed on all of them has none.
    """
    best = {name: each.max(1) for name, each in scores.items()}  # NaN stays NaN
    known = {name: each[~np.isnan(each)] for name, each in best.items()}
    return {name: threshold_at(each, rate) for name, each in known.items() if len(each)}


def fingerprint_cell(cell: dict[str, Any], shared: Any) -> dict[str, Any]:
    """The fingerprint of a song by one judge, and the processor time that it took."""
    judges, sounds, rate = shared
    began = processor_seconds()
    fingerprint = judges[cell["judge"]].fingerprint(sounds[cell["song"]], rate)
    return {"fingerprint": fingerprint, "seconds": processor_seconds() - began}


def scores_cell(cell: dict[str, Any], shared: Any) -> np.ndarray:
    """The scores of some sounds by one judge: (sounds, songs)."""
    judges, sounds, rate = shared
    judge: Judge = judges[cell["judge"]]
    return np.stack([judge.scores(judge.query(sounds[place], rate)) for place in range(cell["first"], cell["last"])])


def processor_seconds() -> float:
    """Of this process and of the programs that it has run."""
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + programs.ru_utime + programs.ru_stime


def arrays(sounds: Sequence[Tensor]) -> list[np.ndarray]:
    """Sounds as judges take them: float32 (samples,) each."""
    return [sound.to(torch.float32).numpy() for sound in sounds]
