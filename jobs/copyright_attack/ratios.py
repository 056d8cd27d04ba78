"""How much more noise than attack a judge bears: the norms at which a song is lost, for each song and judge.

The change of an attack is made louder and fainter, and so is noise. Scaling a change is not what an attack of another
size would have found, so that the ratio is one that the attack has at least.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import scipy
import torch
from torch import Tensor

from jobs.common.metrics.intervals import CONFIDENCE
from jobs.copyright_attack.clips import ATTACK
from jobs.copyright_attack.judges.enrolment import Enrolment
from jobs.copyright_attack.measures import amplitude, mixed
from jobs.copyright_attack.params import RatioParams
from service.run import Run

UNIFORM, GAUSSIAN = "uniform", "gaussian"
KINDS = (ATTACK, UNIFORM, GAUSSIAN)
STRIDE = 4.0  # dB


@dataclass(frozen=True)
class Median:
    """Of numbers that may be infinite; low, high: 95 % of the median of all such songs, NaN if too few."""

    value: float
    low: float
    high: float
    count: int


def level_lost(lost: Callable[[float], bool], faintest: float, loudest: float, tolerance: float) -> float:
    """The lowest level in dB at which a song is lost: infinite if there is none, -infinity if that is the faintest.

    Levels are tried from the faintest on, STRIDE apart, and between the last two by bisection. Not from the loudest
    down: the change of an attack takes so much of the song away that, louder than the song, it sounds like the song.
    """
    if lost(faintest):
        return -math.inf
    kept = faintest
    while not lost(gone := min(kept + STRIDE, loudest)):
        if gone == loudest:
            return math.inf
        kept = gone
    while gone - kept > tolerance:
        middle = (kept + gone) / 2
        kept, gone = (kept, middle) if lost(middle) else (middle, gone)
    return gone


def levels(
    params: RatioParams, enrolment: Enrolment, originals: Tensor, changed: Tensor, rate: int, run: Run
) -> list[dict[str, Any]]:
    """A row for each judge, song and kind of change: the level at which the song is lost, in dB below the original.

    originals, changed: (songs, samples); song i of the enrolment is of row i. A row of NaN is left out.
    """
    places = [place for place, sound in enumerate(changed) if bool(sound.isfinite().all())]
    seeds = {kind: [run.seed_for("ratio", kind, place) for place in range(len(originals))] for kind in KINDS}
    cells = [
        {"judge": judge, "song": place, "kind": kind, "seed": seeds[kind][place]}
        for judge in enrolment.judges
        for place in places
        for kind in KINDS
    ]
    shared = (params, dict(enrolment.judges), originals, changed, rate)
    results = run.map(level_cell, cells, shared=shared, name="ratio")
    return [
        {"judge": cell["judge"], "song": cell["song"], "kind": cell["kind"], "level": result}
        for cell, result in zip(cells, results, strict=True)
        if result is not None
    ]


def level_cell(cell: dict[str, Any], shared: Any) -> float:
    """At which level of one kind of change one judge loses one song."""
    params, judges, originals, changed, rate = shared
    judge, original = judges[cell["judge"]], originals[cell["song"]]
    generator = torch.Generator().manual_seed(cell["seed"])
    if cell["kind"] == ATTACK:
        change = changed[cell["song"]] - original
    elif cell["kind"] == UNIFORM:
        change = 2 * torch.rand(original.shape, generator=generator) - 1
    else:
        change = torch.randn(original.shape, generator=generator)
    name = judge.songs[cell["song"]]

    def lost(level: float) -> bool:
        verdict = judge.judge(mixed(original, change, level).numpy(), rate)
        return not (verdict.identified and verdict.song == name)

    return level_lost(lost, params.faintest, params.loudest, params.tolerance)


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each judge and kind of noise: the median ratio of its norm to that of the attack, with its interval.

    A song that noise does not lose has an infinite ratio; one that the attack does not lose, and noise does, 0. Songs
    that neither loses, or that are lost before anything is added, say nothing and are counted
    apart. None: too few songs.
    """
    levels_of = {(row["judge"], row["song"], row["kind"]): row["level"] for row in rows}
    answers = []
    for judge in dict.fromkeys(row["judge"] for row in rows):
        for kind in (UNIFORM, GAUSSIAN):
            values, silent = [], 0
            for song in dict.fromkeys(row["song"] for row in rows if row["judge"] == judge):
                noise, attack = (levels_of.get((judge, song, each)) for each in (kind, ATTACK))
                if noise is None or attack is None:
                    continue
                if noise == attack and math.isinf(noise) or -math.inf in (noise, attack):
                    silent += 1
                elif math.inf in (noise, attack):
                    values.append(math.inf if noise == math.inf else 0.0)
                else:
                    values.append(amplitude(noise - attack))
            found = median(values)
            answers.append({
                "judge": judge, "noise": kind, "ratio": _known(found.value), "low": _known(found.low),
                "high": _known(found.high),
                "songs": found.count, "songs_that_say_nothing": silent,
            })  # fmt: skip
    return answers


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def median(values: Sequence[float]) -> Median:
    """With an interval by ranks, which needs no distribution: of fewer than 6 numbers there is none of 95 %.

    Source: Conover 1999, "Practical nonparametric statistics", section 3.2: ranks r and n - r + 1 of the binomial.
    """
    ordered, count = sorted(values), len(values)
    if not count:
        return Median(math.nan, math.nan, math.nan, 0)
    low_middle, high_middle = ordered[(count - 1) // 2], ordered[count // 2]
    middle = low_middle if low_middle == high_middle else (low_middle + high_middle) / 2
    rank = int(scipy.stats.binom.ppf((1 - CONFIDENCE) / 2, count, 0.5))  # numbers to leave out on each side
    if 2 * scipy.stats.binom.cdf(rank - 1, count, 0.5) > 1 - CONFIDENCE + 1e-12 or rank < 1:
        return Median(middle, math.nan, math.nan, count)
    return Median(middle, ordered[rank - 1], ordered[count - rank], count)
