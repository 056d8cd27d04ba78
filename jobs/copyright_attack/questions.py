"""Attacks that only ask a judge, song by song."""

from typing import Any

import torch
from torch import Tensor

from jobs.copyright_attack.attack.queries import query
from jobs.copyright_attack.attack.search import FULL
from jobs.copyright_attack.clips import Subjects
from jobs.copyright_attack.judges.enrolment import Enrolment
from jobs.copyright_attack.params import Params
from service.run import Run


def made_by_queries(
    params: Params, subjects: Subjects, enrolment: Enrolment, run: Run
) -> tuple[dict[tuple[str, float], Tensor], list[dict[str, Any]]]:
    """What random search makes of the first songs, by "queries_JUDGE" and the bound: (songs, samples), NaN of all
    others; and a row for each song. A judge that is not there is not asked.
    """
    if params.queries is None:
        return {}, []
    count = min(params.queries.songs, len(subjects.own))
    cells: list[dict[str, Any]] = [
        {"judge": judge, "song": place, "seed": run.seed_for("queries", judge, place)}
        for judge in params.queries.judges
        if judge in enrolment.judges
        for place in range(count)
    ]
    judges = {name: enrolment.judges[name] for name in {cell["judge"] for cell in cells}}
    shared = (params.queries, judges, subjects.own.sounds[:count], subjects.rate)
    results = run.map(query_cell, cells, shared=shared, name="queries")
    sounds: dict[tuple[str, float], Tensor] = {}
    rows = []
    for cell, result in zip(cells, results, strict=True):
        key = (f"queries_{cell['judge']}", params.queries.epsilon)
        every = sounds.setdefault(key, torch.full_like(subjects.own.sounds, torch.nan))
        if result is not None:
            every[cell["song"]] = result["sound"].float() / FULL
            rows.append(
                {
                    "judge": cell["judge"],
                    "song": cell["song"],
                    "successful": result["successful"],
                    "queries": len(result["scores"]),
                    "first_score": float(result["scores"][0]),
                    "last_score": float(result["scores"][-1]),
                }
            )
    return sounds, rows


def query_cell(cell: dict[str, Any], shared: Any) -> dict[str, Any]:
    """The questions to one judge about one song."""
    params, judges, sounds, rate = shared
    judge = judges[cell["judge"]]

    def asked(sound: Tensor) -> tuple[float, bool]:
        scores = judge.scores(judge.query(sound.numpy(), rate))
        verdict = judge.verdict(scores)
        return float(scores[cell["song"]]), verdict.identified and verdict.song == judge.songs[cell["song"]]

    done = query(sounds[cell["song"]], rate, asked, params, cell["seed"])
    return {
        "sound": (done.sound * FULL).round().to(torch.int16),
        "scores": done.scores,
        "successful": done.successful,
    }
