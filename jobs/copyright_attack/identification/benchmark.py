"""The benchmark of judges: excerpts of enrolled and of other songs, changed along one axis at a time, in cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from jobs.common.data.music.base import Songs
from jobs.common.metrics.detection import Area, Threshold, area, threshold_at
from jobs.copyright_attack.identification.changes import excerpt, faster, higher, with_noise
from jobs.copyright_attack.identification.params import Axis, IdentificationParams
from jobs.copyright_attack.judges.base import Judge
from jobs.copyright_attack.judges.enrolment import Enrolment, arrays, processor_seconds
from service.errors import FieldError
from service.run import Run

SLICE = 5  # excerpts in a cell
PLAIN = "plain"  # the axis of excerpts that are not changed

Key = tuple[str, str, float, bool]
"""a judge, an axis, a level, and whether the songs are enrolled"""


@dataclass(frozen=True)
class Answers:
    """What a judge says of excerpts at one level."""

    scores: np.ndarray
    """float64 (excerpts, songs)"""
    truth: np.ndarray
    """int64 (excerpts,): the place of the song that each is of; -1 of a song that is not enrolled"""

    @property
    def best(self) -> np.ndarray:
        """The best score of each excerpt: (excerpts,)."""
        scores: np.ndarray = self.scores.max(1)
        return scores


@dataclass(frozen=True)
class Benchmark:
    """All answers, and what they cost. Excerpts whose cell failed are left out."""

    answers: Mapping[Key, Answers]
    seconds: Mapping[str, float]
    """of processor time for a second of a query, by judge"""
    false_alarms: float
    """share of excerpts of other songs that thresholds are calibrated for"""

    def plain(self, judge: str, enrolled: bool) -> Answers | None:
        """Of excerpts that are not changed; None if all failed."""
        return self.answers.get((judge, PLAIN, 0.0, enrolled))

    def threshold(self, judge: str) -> Threshold | None:
        """Calibrated on plain excerpts of songs that are not enrolled."""
        others = self.plain(judge, enrolled=False)
        return None if others is None else threshold_at(others.best, self.false_alarms)

    def area(self, judge: str) -> Area | None:
        """Below the ROC of plain excerpts: of their own song's score against the best score of other songs'."""
        positives, negatives = self.scores_for_roc(judge)
        return area(positives, negatives) if len(positives) and len(negatives) else None

    def scores_for_roc(self, judge: str) -> tuple[np.ndarray, np.ndarray]:
        """Scores of plain excerpts, of the right song (n,), and the best ones of other songs (m,)."""
        own, others = self.plain(judge, enrolled=True), self.plain(judge, enrolled=False)
        right = np.zeros(0) if own is None else own.scores[np.arange(len(own.truth)), own.truth]
        return right, np.zeros(0) if others is None else others.best


def check(params: IdentificationParams, enrolled: Songs, others: Songs) -> None:
    """FieldError if the benchmark asks for more songs than there are."""
    if params.songs and max(params.songs) > len(enrolled):
        requirement = f"be at most {len(enrolled)}, the number of songs that are enrolled"
        raise FieldError("identification.songs", requirement, max(params.songs))
    if not len(others):
        raise FieldError("data.others", "be at least 1: thresholds are calibrated on songs that are not enrolled", 0)


def measured(
    params: IdentificationParams, enrolment: Enrolment, enrolled: Songs, others: Songs, false_alarms: float, run: Run
) -> Benchmark:
    """Ask every judge about every excerpt. false_alarms: share of them that thresholds are calibrated for."""
    cells: list[dict[str, Any]] = [
        {"judge": judge, "axis": axis, "level": level, "enrolled": known, "first": first, "last": last}
        for judge in enrolment.judges
        for axis, level, known, count in _sets(params, len(enrolled), len(others))
        for first, last in _slices(count)
    ]
    shared = Shared(
        dict(enrolment.judges), arrays(enrolled.sounds), arrays(others.sounds), enrolled.rate, params,
        run.seed_for("identification"),
    )  # fmt: skip
    results = run.map(identification_cell, cells, shared=shared, name="identification")
    parts: dict[Key, list[Answers]] = {}
    took, heard = dict.fromkeys(enrolment.judges, 0.0), dict.fromkeys(enrolment.judges, 0.0)
    for cell, result in zip(cells, results, strict=True):
        if result is not None:
            truth = np.arange(cell["first"], cell["last"]) // params.excerpts if cell["enrolled"] else -1
            part = Answers(result["scores"], np.broadcast_to(truth, len(result["scores"])))
            parts.setdefault((cell["judge"], cell["axis"], cell["level"], cell["enrolled"]), []).append(part)
            took[cell["judge"]] += result["took"]
            heard[cell["judge"]] += result["heard"]
    answers = {
        key: Answers(np.concatenate([each.scores for each in found]), np.concatenate([each.truth for each in found]))
        for key, found in parts.items()
    }
    return Benchmark(answers, {name: took[name] / heard[name] for name in took if heard[name]}, false_alarms)


@dataclass(frozen=True)
class Shared:
    """What all cells need."""

    judges: Mapping[str, Judge]
    enrolled: Sequence[np.ndarray]
    others: Sequence[np.ndarray]
    rate: int
    params: IdentificationParams
    seed: int


def identification_cell(cell: dict[str, Any], shared: Shared) -> dict[str, Any]:
    """What a judge says of some excerpts at one level: scores (excerpts, songs), the time, the seconds of sound."""
    judge = shared.judges[cell["judge"]]
    if cell["axis"] == "songs":
        judge = judge.of_first(int(cell["level"]))
    songs = shared.enrolled if cell["enrolled"] else shared.others
    scores, took, heard = [], 0.0, 0.0
    for number in range(cell["first"], cell["last"]):
        generator = np.random.default_rng([shared.seed, int(cell["enrolled"]), number])  # the same at all levels
        song = songs[number // shared.params.excerpts]
        query = changed(song, shared.rate, cell["axis"], cell["level"], shared.params.seconds, generator)
        began = processor_seconds()
        scores.append(judge.scores(judge.query(query, shared.rate)))
        took += processor_seconds() - began
        heard += len(query) / shared.rate
    return {"scores": np.stack(scores), "took": took, "heard": heard}


def changed(
    song: np.ndarray, rate: int, axis: str, level: float, seconds: float, generator: np.random.Generator
) -> np.ndarray:
    """An excerpt of a song at a level of an axis: float (samples,)."""
    part = excerpt(song, rate, level if axis == "duration" else seconds, generator)
    match axis:
        case "noise":
            return with_noise(part, level, generator)
        case "speed":
            return faster(part, level)
        case "pitch":
            return higher(part, level)
        case _:
            return part


def excerpts(params: IdentificationParams, enrolled: int, others: int) -> int:
    """How many each judge is asked about. enrolled, others: numbers of songs."""
    return sum(count for *_, count in _sets(params, enrolled, others))


def _sets(params: IdentificationParams, enrolled: int, others: int) -> list[tuple[str, float, bool, int]]:
    """Every axis and level, whether its songs are enrolled, and the number of excerpts.

    Songs that are not enrolled are asked about where a change makes it easier to name a wrong song.
    """
    levels = [(PLAIN, 0.0), *((axis, level) for axis in get_args(Axis) for level in params.levels(axis))]
    return [
        (axis, level, known, _excerpts(params, axis, known, enrolled if known else others))
        for axis, level in levels
        for known in (True, False)
        if known or axis in (PLAIN, "duration", "songs")
    ]


def _excerpts(params: IdentificationParams, axis: str, enrolled: bool, songs: int) -> int:
    """How many there are at a level of an axis. Where the number of songs grows, all are of those always enrolled."""
    return params.excerpts * (min(params.songs) if axis == "songs" and enrolled else songs)


def _slices(count: int) -> list[tuple[int, int]]:
    return [(first, min(first + SLICE, count)) for first in range(0, count, SLICE)]
