"""What became of a target, and how often: verdicts, and rates with their intervals."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from jobs.common.metrics.intervals import wilson
from jobs.poison_frogs.poisons.search import Crafts
from jobs.poison_frogs.targets.selection import Target
from jobs.poison_frogs.victims.retraining import Group, Retraining, Unpoisoned, retrain
from service.run import Run

Verdict = Literal["base class", "own class", "third class", "inconclusive"]
VERDICTS: tuple[Verdict, ...] = ("base class", "own class", "third class", "inconclusive")

LEAST_FITTED = 0.5  # of the poisons, without which the victim did not learn what it was given


def verdict(prediction: int, own: int, aim: int, fitted: float) -> Verdict:
    """What a victim makes of its target.

    prediction: the target's class, as the victim sees it. own, aim: its own class and that of the bases. fitted: the
    share of the poisons that the victim takes for their label. A victim that has not learnt the poisons tells nothing
    about them, unless the target fell anyway. Success is the base class alone (Shafahi et al. 2018, section 4.2.1).
    """
    if prediction == aim:
        return "base class"
    if fitted < LEAST_FITTED:
        return "inconclusive"
    return "own class" if prediction == own else "third class"


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
        told = ("victim", "defence", "repeat", "control", "poisons", "verdict", "confidence", "fitted", "rotation")
        return {
            **{"target": target.index, "class": classes[target.own], "base_class": classes[target.aim]},
            **{"clean_margin": target.margin, "clean_confidence": target.confidence, "neighbour": target.neighbour},
            **{name: getattr(self, name) for name in told},
            "collision": min((each.collision for each in poisons), default=math.nan),
            "stopped": ", ".join(sorted({each.stopped for each in poisons})),
            **{name: getattr(self, name) for name in ("accuracy", "drop", "recall", "precision", "clean_removed")},
        }

    def epoch_rows(self) -> list[dict[str, Any]]:
        """Of the table of epochs."""
        who = {name: getattr(self, name) for name in ("victim", "defence", "repeat", "poisons")}
        return [
            {"target": self.target.index, **who, "epoch": epoch, "confidence": confidence, "rotation": angle}
            for epoch, (confidence, angle) in enumerate(self.epochs, 1)
        ]


def verdicts_of(
    shared: Retraining,
    groups: Sequence[Group],
    targets: Sequence[Target],
    crafts: Crafts,
    counts: Sequence[int],
    unpoisoned: Unpoisoned,
    run: Run,
) -> list[Outcome]:
    """A victim of each kind, defence and repeat for each target and number of poisons, and for the flipped label.

    groups: what the controls are of. crafts: in the order of the poisons of `shared`. A target
    that lacks a poison is left out of the numbers that need it. The seed of a victim does not depend on the number.
    """
    rows = {key: row for row, key in enumerate(crafts.made)}
    cells: list[dict[str, Any]] = []
    meant: list[tuple[Control, int, int]] = []
    for victim, defence, repeat, group in unpoisoned:
        for place, target in enumerate(targets):
            if target.group != group:
                continue
            cell: dict[str, Any] = {"victim": victim, "defence": defence, "repeat": repeat, "targets": [target.index]}
            cell |= {"aim": target.aim, "seed": run.seed_for("victim", victim, repeat, target.index)}
            cell |= {"group": group, **groups[group].replaced}
            for count in counts:
                if (keys := crafts.keys(place, count)) is not None:
                    cells.append(cell | {"poisons": [rows[key] for key in keys], "flips": 0})
                    meant.append(("poison", count, place))
            if not defence:
                cells.append(cell | {"poisons": [], "flips": counts[-1]})
                meant.append(("flipped label", counts[-1], place))
    results = run.map(retrain, cells, shared, name="victims")

    used = [{target.index} for target in targets]
    for (place, _, _), one in () if shared.size else crafts.made.items():
        used[place].add(one.base)
    counted = [~torch.isin(shared.test_rows, torch.tensor(sorted(each))) for each in used]

    def judged(
        victim: str, defence: str, repeat: int, control: Control, count: int, place: int, row: int, result: Any
    ) -> Outcome:
        target, mask = targets[place], counted[place]
        probabilities = result["probabilities"][row]
        clean = unpoisoned[victim, "", repeat, target.group]["right"][mask].double().mean()
        accuracy = result["right"][mask].double().mean()
        return Outcome(
            *(victim, defence, repeat, control, count, place, target),
            verdict(int(probabilities.argmax()), target.own, target.aim, result["fitted"]),
            confidence=float(probabilities[target.aim]),
            accuracy=float(accuracy),
            drop=float(clean - accuracy),
            **{name: result[name] for name in ("fitted", "rotation", "recall", "precision", "clean_removed", "epochs")},
        )

    found = [
        judged(victim, defence, repeat, "no poison", 0, place, groups[group].targets.index(target.index), result)
        for (victim, defence, repeat, group), result in unpoisoned.items()
        for place, target in enumerate(targets)
        if target.group == group
    ]
    for cell, (control, count, place), result in zip(cells, meant, results, strict=True):
        if result is not None:
            who = (cell["victim"], cell["defence"], cell["repeat"])
            found.append(judged(*who, control, count, place, 0, result))
    return found


def rates(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """A row for each victim, defence, control and number of poisons: the rate with its 95 % interval, and the rest."""
    groups: dict[tuple[str, str, str, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.victim, one.defence, one.control, one.poisons), []).append(one)
    rows = []
    for (victim, defence, control, poisons), own in groups.items():
        count = {name: sum(one.verdict == name for one in own) for name in VERDICTS}
        low, high = wilson(count["base class"], len(own))
        rows.append(
            {
                **{"victim": victim, "defence": defence, "control": control, "poisons": poisons, "n": len(own)},
                **{name.replace(" ", "_"): found for name, found in count.items()},
                **{"success": count["base class"] / len(own), "low": low, "high": high},
                "fitted": statistics.fmean(one.fitted for one in own),
                "confidence": statistics.median(one.confidence for one in own),
                "rotation": _mean(one.rotation for one in own),
                "accuracy": statistics.fmean(one.accuracy for one in own),
                "accuracy_drop": statistics.fmean(one.drop for one in own),
                "largest_drop": max(one.drop for one in own),
                "drop_deviation": statistics.pstdev(one.drop for one in own),
                **{name: _mean(getattr(one, name) for one in own) for name in ("recall", "precision", "clean_removed")},
            }
        )
    return rows


def _mean(values: Iterable[float]) -> float:
    """Of those that are not NaN; NaN if none is left."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan
