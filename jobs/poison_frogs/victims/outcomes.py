"""What became of a target, and how often: outcomes, and rates with their intervals."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.common.metrics.intervals import wilson_of_groups
from jobs.poison_frogs.poisons.search import Crafts
from jobs.poison_frogs.targets.selection import Target

Verdict = Literal["base class", "own class", "third class", "inconclusive"]
VERDICTS: tuple[Verdict, ...] = ("base class", "own class", "third class", "inconclusive")

LEAST_FITTED = 0.5  # of the poisons, without which the victim did not learn what it was given


def verdict(prediction: int, true_class: int, base_class: int, fitted: float) -> Verdict:
    """What a victim makes of its target.

    prediction: the class that the victim gives to the target. base_class: that of the bases. fitted: the share of the
    poisons that the victim takes for their label. A victim that has not learnt the poisons tells nothing about them,
    unless the target fell anyway. Success is the base class alone (Shafahi et al. 2018, section 4.2.1).
    """
    if prediction == base_class:
        return "base class"
    if fitted < LEAST_FITTED:
        return "inconclusive"
    return "own class" if prediction == true_class else "third class"


Control = Literal["poison", "no poison", "flipped label"]


@dataclass(frozen=True)
class Outcome:
    """What one victim made of one target."""

    victim: str
    defence: str
    """its name, "" for none"""
    repeat: int
    control: Control
    poisons: int
    """in its training set; of a flipped label: copies of the target"""
    place: int
    """of the target among all"""
    target: Target
    verdict: Verdict
    confidence: float
    """probability of the base class for the target"""
    fitted: float
    """share of the poisons it learnt from that it takes for their label; 1 if there were none"""
    rotation: float
    """degrees that the weights of the base class turned by; NaN without poison, or if the victim began elsewhere"""
    accuracy: float
    """on clean test images, but for the target and the bases of its poisons"""
    drop: float
    """accuracy of the victim with no poison and no defence on the same images, minus this"""
    recall: float
    """share of the poisons that the defence dropped; NaN without one"""
    precision: float
    """share of what it dropped that was poison; NaN if that was nothing"""
    clean_removed: float
    """share of the clean points that it dropped; NaN without one"""
    epochs: Sequence[Sequence[float]] = ()
    """of a network: confidence and rotation after each epoch"""

    def row(self, classes: Sequence[str], crafts: Crafts) -> dict[str, Any]:
        """Of the table of targets."""
        poisons = crafts.of(self.place, self.poisons) if self.control == "poison" else []
        target = self.target
        return {
            "target": target.index,
            "class": classes[target.true_class],
            "base_class": classes[target.base_class],
            "clean_margin": target.margin,
            "clean_confidence": target.confidence,
            "neighbour": target.neighbour,
            "victim": self.victim,
            "defence": self.defence,
            "repeat": self.repeat,
            "control": self.control,
            "poisons": self.poisons,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "fitted": self.fitted,
            "rotation": self.rotation,
            "collision": min((each.collision for each in poisons), default=math.nan),
            "stopped": ", ".join(sorted({each.stopped for each in poisons})),
            "accuracy": self.accuracy,
            "drop": self.drop,
            "recall": self.recall,
            "precision": self.precision,
            "clean_removed": self.clean_removed,
        }

    def epoch_rows(self) -> list[dict[str, Any]]:
        """Of the table of epochs."""
        return [
            {
                "target": self.target.index,
                "victim": self.victim,
                "defence": self.defence,
                "repeat": self.repeat,
                "poisons": self.poisons,
                "epoch": epoch,
                "confidence": confidence,
                "rotation": angle,
            }
            for epoch, (confidence, angle) in enumerate(self.epochs, 1)
        ]


def rates(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """A row for each victim, defence, control and number of poisons: the rate with its 95 % interval, and the rest.

    Repeats of one target resemble each other, and are worth fewer outcomes in the interval.
    """
    groups: dict[tuple[str, str, str, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.victim, one.defence, one.control, one.poisons), []).append(one)
    rows = []
    for (victim, defence, control, poisons), group in groups.items():
        count = {name: sum(one.verdict == name for one in group) for name in VERDICTS}
        low, high = wilson_of_groups([one.verdict == "base class" for one in group], [one.place for one in group])
        rows.append(
            {
                "victim": victim,
                "defence": defence,
                "control": control,
                "poisons": poisons,
                "n": len(group),
                "base_class": count["base class"],
                "own_class": count["own class"],
                "third_class": count["third class"],
                "inconclusive": count["inconclusive"],
                "success": count["base class"] / len(group),
                "low": low,
                "high": high,
                "fitted": statistics.fmean(one.fitted for one in group),
                "confidence": statistics.median(one.confidence for one in group),
                "rotation": _mean(one.rotation for one in group),
                "accuracy": statistics.fmean(one.accuracy for one in group),
                "accuracy_drop": statistics.fmean(one.drop for one in group),
                "largest_drop": max(one.drop for one in group),
                "drop_deviation": statistics.pstdev(one.drop for one in group),
                "recall": _mean(one.recall for one in group),
                "precision": _mean(one.precision for one in group),
                "clean_removed": _mean(one.clean_removed for one in group),
            }
        )
    return rows


def _mean(values: Iterable[float]) -> float:
    """Of those that are not NaN; NaN if none is left."""
    defined = [value for value in values if not math.isnan(value)]
    return statistics.fmean(defined) if defined else math.nan
