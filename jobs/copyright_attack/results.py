"""What a run keeps: tables of clips and verdicts, shares of songs that are identified, sounds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.common.metrics.intervals import clopper_pearson
from jobs.copyright_attack.clips import ATTACK, ORIGINAL, UNRELATED, Clip, Subjects
from jobs.copyright_attack.judges.base import Judge, Verdict
from jobs.copyright_attack.params import Params
from service.run import Run

Row = dict[str, Any]


def clip_rows(clips: Sequence[Clip], measures: Sequence[Row], names: Sequence[str], others: Sequence[str]) -> list[Row]:
    """A row for each clip: what it is, and how large its change is. names, others: of the songs."""
    return [
        {
            "clip": number,
            "song": (others if clip.kind == UNRELATED else names)[clip.song],
            "kind": clip.kind,
            "attack": clip.attack,
            "epsilon": clip.epsilon,
            "kilobits": clip.kilobits,
            **measures[number],
        }
        for number, clip in enumerate(clips)
    ]


def verdict_rows(
    clips: Sequence[Clip], verdicts: Mapping[str, Sequence[Verdict | None]], names: Sequence[str]
) -> list[Row]:
    """A row for each judge and clip. right: identified as the song that it is of; False of all that is in no song."""
    return [
        {
            "clip": number,
            "judge": judge,
            "named": verdict.song,
            "score": verdict.score,
            "runner_up": verdict.runner_up,
            "identified": verdict.identified,
            "right": clip.kind != UNRELATED and verdict.identified and verdict.song == names[clip.song],
        }
        for judge, every in verdicts.items()
        for number, (clip, verdict) in enumerate(zip(clips, every, strict=True))
        if verdict is not None
    ]


def share_rows(clips: Sequence[Row], verdicts: Sequence[Row]) -> list[Row]:
    """For each judge and kind of clip the share that is identified rightly, with its interval over songs.

    wrong: the share that is taken for a song that it is not of.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in verdicts:
        clip = clips[row["clip"]]
        key = (row["judge"], clip["kind"], clip["attack"], clip["epsilon"], clip["kilobits"])
        groups.setdefault(key, []).append(row)
    shares = []
    for (judge, kind, attack, epsilon, kilobits), rows in groups.items():
        right = sum(row["right"] for row in rows)
        low, high = clopper_pearson(right, len(rows))
        shares.append({
            "judge": judge, "kind": kind, "attack": attack, "epsilon": epsilon, "kilobits": kilobits,
            "songs": len(rows), "identified": right / len(rows), "low": low, "high": high,
            "wrong": sum(row["identified"] and not row["right"] for row in rows) / len(rows),
            "score": statistics.median(row["score"] for row in rows),
        })  # fmt: skip
    return shares


def measure_rows(clips: Sequence[Row]) -> list[Row]:
    """For each kind of clip the mean of everything that was measured of it."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for clip in clips:
        groups.setdefault((clip["kind"], clip["attack"], clip["epsilon"], clip["kilobits"]), []).append(clip)
    fixed = ("clip", "song", "kind", "attack", "epsilon", "kilobits")
    columns = [column for column in clips[0] if column not in fixed]
    return [
        {
            "kind": kind,
            "attack": attack,
            "epsilon": epsilon,
            "kilobits": kilobits,
            "clips": len(rows),
            **{column: _mean([row[column] for row in rows]) for column in columns},
        }
        for (kind, attack, epsilon, kilobits), rows in groups.items()
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known else None


def metrics_of(params: Params, shares: Sequence[Row], means: Sequence[Row], ratios: Sequence[Row]) -> dict[str, float]:
    """Numbers for a sweep: of every attack at its largest size, and of noise of equal norm."""
    metrics: dict[str, float] = {}
    for row in shares:
        if row["kind"] in (ORIGINAL, UNRELATED) and not row["kilobits"]:
            name = "identified" if row["kind"] == ORIGINAL else "wrong"
            metrics[f"{name}_{row['judge']}_{row['kind']}"] = row[name]
    largest = {name: max(each.epsilons) for name, each in params.attacks.items()}
    for row in shares:
        if row["kilobits"] or largest.get(row["attack"]) != row["epsilon"]:
            continue
        if row["kind"] == ATTACK:
            metrics[f"identified_{row['judge']}_{row['attack']}"] = row["identified"]
        elif row["kind"] == "uniform":
            metrics[f"identified_{row['judge']}_noise_as_{row['attack']}"] = row["identified"]
    for row in means:
        if row["kind"] == ATTACK and not row["kilobits"] and largest.get(row["attack"]) == row["epsilon"]:
            for name in ("snr", "noise_to_mask", *(f"survival_{each}" for each in params.fingerprints)):
                if (value := row.get(name)) is not None:  # of a change that is none, or whose cells failed
                    metrics[f"{name}_{row['attack']}"] = value
    for row in (row for row in ratios if row["ratio"] is not None):
        metrics[f"ratio_{row['judge']}_{row['noise']}"] = row["ratio"]
    return metrics


def warnings_of(shares: Sequence[Row], judges: Mapping[str, Judge]) -> list[str]:
    """What a reader has to know first: judges that do not know the originals, or that take other songs for them."""
    warnings = []
    for row in shares:
        if row["kilobits"]:
            continue
        title = judges[row["judge"]].title
        if row["kind"] == ORIGINAL and row["identified"] < 0.9:
            warnings.append(
                f"{title} identifies {row['identified']:.0%} of the originals: what it says of attacks is weak"
            )
        if row["kind"] == UNRELATED and row["wrong"] > 0.1:
            warnings.append(f"{title} takes {row['wrong']:.0%} of unrelated songs for one that is enrolled")
    return warnings


def keep_sounds(params: Params, clips: Sequence[Clip], subjects: Subjects, names: Sequence[str], run: Run) -> None:
    """The sounds of the first songs: the original, what attacks made of it, and noise of equal norm."""
    shown = [clip for clip in clips if clip.kind in (ORIGINAL, ATTACK, "uniform") and not clip.kilobits]
    for clip in sorted(shown, key=lambda clip: clip.song):
        if clip.song >= params.examples:
            continue
        name, song = f"{clip.song}-{clip.kind}", names[clip.song]
        if clip.kind == ORIGINAL:
            title = f"{song}: the original"
        elif clip.kind == ATTACK:
            name, title = f"{name}-{clip.attack}-{clip.epsilon:g}", f"{song}: {clip.attack}, {clip.epsilon:g}"
        else:
            name = f"{name}-{clip.attack}-{clip.epsilon:g}"
            title = f"{song}: uniform noise of the norm of {clip.attack}, {clip.epsilon:g}"
        run.audio(name.replace("_", "-"), clip.sound.numpy(), subjects.rate, title=title)
