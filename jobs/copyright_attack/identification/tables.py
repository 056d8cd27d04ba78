"""The rows of the benchmark of judges, with 95 % intervals."""

from typing import Any

import numpy as np

from jobs.common.metrics.intervals import clopper_pearson
from jobs.copyright_attack.identification.benchmark import PLAIN, Benchmark
from jobs.copyright_attack.judges.enrolment import Enrolment


def level_rows(benchmark: Benchmark, enrolment: Enrolment) -> list[dict[str, Any]]:
    """A row for each judge at each level of each axis.

    identified: the right song, above the threshold that is calibrated on plain excerpts. by_its_rule: the right song,
    by the judge's own rule. taken_for_another: a wrong song, above the threshold. false_alarms: any song above it, of
    excerpts of songs that are not enrolled; None where they were not asked about.
    """
    rows = []
    for (name, axis, level, enrolled), answers in benchmark.answers.items():
        if not enrolled or axis == PLAIN or (threshold := benchmark.threshold(name)) is None:
            continue
        judge = enrolment.judges[name]
        judge = judge.of_first(int(level)) if axis == "songs" else judge
        right, above = answers.scores.argmax(1) == answers.truth, answers.best > threshold.value
        accepted = np.array([judge.verdict(each).identified for each in answers.scores], bool)
        others = benchmark.answers.get((name, axis, level, False))
        rows.append(
            {
                "axis": axis,
                "level": level,
                "judge": name,
                "excerpts": len(right),
                **share("identified", right & above),
                **share("by_its_rule", right & accepted),
                **share("taken_for_another", ~right & above),
                **share("false_alarms", None if others is None else others.best > threshold.value),
            }
        )
    return rows


def judge_rows(benchmark: Benchmark, enrolment: Enrolment) -> list[dict[str, Any]]:
    """A row for each judge: its rule, its ROC on plain excerpts, and its calibrated threshold.

    An interval without an end is None there: the excerpts of other songs are too few to say.
    """
    rows = []
    for name, judge in enrolment.judges.items():
        area, threshold, others = benchmark.area(name), benchmark.threshold(name), benchmark.plain(name, enrolled=False)
        accepted = None if others is None else np.array([judge.verdict(each).identified for each in others.scores])
        rows.append(
            {
                "judge": name,
                "version": judge.version,
                "unit": judge.unit,
                "rule": judge.rule,
                **share("false_alarms_by_its_rule", accepted),
                "roc_area": area and area.value,
                "roc_area_low": area and area.low,
                "roc_area_high": area and area.high,
                "threshold": threshold and threshold.value,
                "threshold_low": threshold and _finite(threshold.low),
                "threshold_high": threshold and _finite(threshold.high),
                **share("false_alarms", None if others is None or not threshold else others.best > threshold.value),
                "excerpts_of_others": threshold and threshold.negatives,
            }
        )
    return rows


def cost_rows(benchmark: Benchmark, enrolment: Enrolment) -> list[dict[str, Any]]:
    """A row for each judge: seconds of processor time for a second of sound, which differ from run to run; bytes."""
    return [
        {
            "judge": name,
            "songs": len(judge.songs),
            "enrolled_in_seconds": enrolment.seconds[name],
            "judged_in_seconds": benchmark.seconds.get(name),
            "bytes_per_song": judge.bytes / len(judge.songs),
        }
        for name, judge in enrolment.judges.items()
    ]


def share(name: str, successes: np.ndarray | None) -> dict[str, Any]:
    """A share with its interval, None where there is nothing that could be counted. successes: bool (n,)."""
    if successes is None or not len(successes):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = clopper_pearson(int(successes.sum()), len(successes))
    return {name: float(successes.mean()), f"{name}_low": low, f"{name}_high": high}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
