"""Victims with poisons, and with flipped labels: which are trained, and what became of their targets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.poison_frogs.poisons.search import Crafts
from jobs.poison_frogs.targets.selection import Target
from jobs.poison_frogs.victims.outcomes import Control, Outcome, verdict
from jobs.poison_frogs.victims.retraining import Group, Retraining, Unpoisoned, retrain
from service.run import Run


@dataclass(frozen=True)
class Attempt:
    """One victim against one target: which cell computes it, and where the target is in its result."""

    victim: str
    defence: str
    repeat: int
    control: Control
    poisons: int
    place: int
    """of the target among all"""
    row: int
    """of the target among those of the cell"""


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

    groups: what the controls are of. crafts: in the order of the poisons of `shared`. A target that lacks a poison is
    left out of the numbers that need it. The seed of a victim does not depend on the number of poisons.
    """
    cells, attempts = _cells(groups, targets, crafts, counts, unpoisoned, run)
    results = run.map(retrain, cells, shared, name="victims")
    judge = _Judge(shared, targets, crafts, unpoisoned)
    outcomes = [
        judge.outcome(
            Attempt(victim, defence, repeat, "no poison", 0, place, groups[group].targets.index(target.index)), result
        )
        for (victim, defence, repeat, group), result in unpoisoned.items()
        for place, target in enumerate(targets)
        if target.group == group
    ]
    judged = zip(attempts, results, strict=True)
    return outcomes + [judge.outcome(attempt, result) for attempt, result in judged if result is not None]


def _cells(
    groups: Sequence[Group],
    targets: Sequence[Target],
    crafts: Crafts,
    counts: Sequence[int],
    unpoisoned: Unpoisoned,
    run: Run,
) -> tuple[list[dict[str, Any]], list[Attempt]]:
    """The cells of `retrain` with poisons or flipped labels, and what each is."""
    rows = {key: row for row, key in enumerate(crafts.made)}
    cells: list[dict[str, Any]] = []
    attempts: list[Attempt] = []
    for victim, defence, repeat, group in unpoisoned:
        for place, target in enumerate(targets):
            if target.group != group:
                continue
            cell = {
                "victim": victim,
                "defence": defence,
                "repeat": repeat,
                "group": group,
                "targets": [target.index],
                "label": target.base_class,
                "seed": run.seed_for("victim", victim, repeat, target.index),
                **groups[group].replaced,
            }
            for count in counts:
                if (keys := crafts.keys(place, count)) is not None:
                    cells.append(cell | {"poisons": [rows[key] for key in keys], "flips": 0})
                    attempts.append(Attempt(victim, defence, repeat, "poison", count, place, 0))
            if not defence:
                cells.append(cell | {"poisons": [], "flips": counts[-1]})
                attempts.append(Attempt(victim, defence, repeat, "flipped label", counts[-1], place, 0))
    return cells, attempts


class _Judge:
    """Makes outcomes of the results of victims."""

    def __init__(self, shared: Retraining, targets: Sequence[Target], crafts: Crafts, unpoisoned: Unpoisoned) -> None:
        self._targets, self._unpoisoned = targets, unpoisoned
        used = [{target.index} for target in targets]
        if not shared.size:  # bases are of the test split
            for (place, _, _), one in crafts.made.items():
                used[place].add(one.base)
        self._counted = [~torch.isin(shared.test_rows, torch.tensor(sorted(each))) for each in used]

    def outcome(self, attempt: Attempt, result: Mapping[str, Any]) -> Outcome:
        """result: of `retrain`."""
        target, counted = self._targets[attempt.place], self._counted[attempt.place]
        probabilities = result["probabilities"][attempt.row]
        clean = self._unpoisoned[attempt.victim, "", attempt.repeat, target.group]["right"][counted].double().mean()
        accuracy = result["right"][counted].double().mean()
        prediction, detected = int(probabilities.argmax()), result["detected"] or {}
        return Outcome(
            victim=attempt.victim,
            defence=attempt.defence,
            repeat=attempt.repeat,
            control=attempt.control,
            poisons=attempt.poisons,
            place=attempt.place,
            target=target,
            verdict=verdict(prediction, target.true_class, target.base_class, result["fitted"]),
            confidence=float(probabilities[target.base_class]),
            fitted=result["fitted"],
            rotation=result["rotation"],
            accuracy=float(accuracy),
            drop=float(clean - accuracy),
            recall=detected.get("recall", math.nan),
            precision=detected.get("precision", math.nan),
            clean_removed=detected.get("clean_removed", math.nan),
            epochs=result["epochs"],
        )
