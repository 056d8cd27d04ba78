"""What defences gain under attack, and what they cost in false alarms: the judges without them beside those with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from jobs.common.metrics.detection import threshold_at
from jobs.copyright_attack.defences.adversarial import (
    AdversarialNeuralJudge,
    networks_of,
    white_box_cell,
    white_box_cells,
)
from jobs.copyright_attack.defences.jitter import JitteredWangJudge
from jobs.copyright_attack.defences.params import DefenceParams, WhiteBoxParams
from jobs.copyright_attack.defences.votes import NONE, named, voted
from jobs.copyright_attack.identification.tables import share
from jobs.copyright_attack.judges.base import Judge
from jobs.copyright_attack.judges.enrolment import Enrolment, arrays
from jobs.copyright_attack.judges.neural.params import NeuralParams
from jobs.copyright_attack.judges.neural.training import trained
from service.run import Run

DEFENCES = {JitteredWangJudge.name: "jittered peaks", AdversarialNeuralJudge.name: "adversarial training"}
"""by the judge that has it"""


@dataclass(frozen=True)
class Asked:
    """What judges say of some sounds of enrolled songs."""

    scores: Mapping[str, np.ndarray]
    """(sounds, songs) by judge"""
    truth: np.ndarray
    """int64 (sounds,): the place of the song that each is of"""


def defended(params: DefenceParams, neural: NeuralParams, judges: Mapping[str, Judge], run: Run) -> dict[str, Judge]:
    """Judges with a defence, of those that are there without it; a network is trained here. None has songs yet."""
    more: dict[str, Judge] = {}
    if params.jitter is not None and "wang" in judges:
        more[JitteredWangJudge.name] = JitteredWangJudge(params.jitter, run.seed_for("jitter"))
    if params.adversarial is not None and "neural" in judges:
        name = AdversarialNeuralJudge.name
        more[name] = AdversarialNeuralJudge(run.reserved(trained, neural, params.adversarial, name))
    return more


def white_box_asked(
    params: WhiteBoxParams, enrolment: Enrolment, sounds: Sequence[Tensor], truth: np.ndarray, rate: int, run: Run
) -> dict[str, Asked]:
    """What neural judges say of sounds that were attacked through their own networks, by the bound's name.

    sounds: float (samples,) each, of the songs at the places `truth`.
    """
    judges = networks_of(enrolment.judges)
    seeds = [run.seed_for("white-box", place) for place in range(len(sounds))]
    cells = white_box_cells(list(judges), params.epsilons, len(sounds), seeds)
    shared = (judges, arrays(sounds), rate, params.steps)
    results = run.map(white_box_cell, cells, shared=shared, name="white-box")
    asked: dict[str, dict[str, np.ndarray]] = {}
    for cell, result in zip(cells, results, strict=True):
        of_bound = asked.setdefault(f"white box {cell['epsilon']:g}", {})
        songs = len(judges[cell["judge"]].songs)
        of_judge = of_bound.setdefault(cell["judge"], np.full((len(sounds), songs), np.nan))
        if result is not None:
            of_judge[cell["sound"]] = result
    return {name: Asked(scores, truth) for name, scores in asked.items()}


def defence_rows(
    params: DefenceParams, asked: Mapping[str, Asked], others: Mapping[str, np.ndarray], rate: float
) -> list[dict[str, Any]]:
    """A row for each judge, each judge with a defence and each vote, on each set of sounds.

    identified, taken_for_another: above thresholds calibrated on all `others`. false_alarms: of one half of them, above
    thresholds that were calibrated on the other half, so that they can be more than what was asked for.

    asked: sounds by the name of their set. others: (sounds, songs) by judge, of songs that are not enrolled, in the
    order of the songs. rate: of false alarms that thresholds are calibrated for. Sounds whose cells failed are left
    out.
    """
    known = {name: scores[~np.isnan(scores).any(1)] for name, scores in others.items()}
    thresholds = {name: threshold_at(each.max(1), rate).value for name, each in known.items() if len(each) > 1}
    rows = []
    for title, each in asked.items():
        names = {name: named(scores, thresholds[name]) for name, scores in each.scores.items() if name in thresholds}
        for judge in names:
            defence = DEFENCES.get(judge, "")
            rows.append(_row(title, judge, defence, {judge: names[judge]}, 1, each, others, rate))
        voters = [name for name in names if name not in DEFENCES]
        for needed in params.votes:
            if needed <= len(voters) and len(voters) == len([name for name in thresholds if name not in DEFENCES]):
                voting = {name: names[name] for name in voters}
                rows.append(_row(title, f"{needed} of {len(voters)}", "vote", voting, needed, each, others, rate))
    return rows


def _row(
    title: str,
    judge: str,
    defence: str,
    names: Mapping[str, np.ndarray],
    needed: int,
    asked: Asked,
    others: Mapping[str, np.ndarray],
    rate: float,
) -> dict[str, Any]:
    """names: of `named`, of the judges that vote. needed: how many have to agree."""
    there = _there([asked.scores[name] for name in names])
    answers, truth = voted(names, needed)[there], asked.truth[there]
    alarms = _alarms({name: others[name] for name in names}, needed, rate)
    right = answers == truth
    return {
        "sounds": title,
        "judge": judge,
        "defence": defence,
        "count": len(truth),
        **share("identified", right),
        **share("taken_for_another", ~right & (answers != NONE)),
        **share("false_alarms", alarms[_there([others[name] for name in names])]),
    }


def _there(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Which sounds all of these judges have answered: bool (sounds,). scores: (sounds, songs) of each."""
    there: np.ndarray = ~np.any([np.isnan(each).any(1) for each in scores], axis=0)
    return there


def _alarms(others: Mapping[str, np.ndarray], needed: int, rate: float) -> np.ndarray:
    """Which sounds of other songs enough judges take for one: bool (sounds,); thresholds are of the other half."""
    count = min(map(len, others.values()))
    halves = np.arange(count // 2), np.arange(count // 2, count)
    alarms = []
    for tested, calibration in (halves, halves[::-1]):
        names = {}
        for name, scores in others.items():
            best = scores[calibration].max(1)
            best = best[~np.isnan(best)]
            limit = threshold_at(best, rate).value if len(best) else np.inf
            names[name] = named(scores[tested], limit)
        alarms.append(voted(names, needed) != NONE)
    return np.concatenate(alarms)
