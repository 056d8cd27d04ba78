"""What a run writes down: rows of metrics, tables, and the poisons as files."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from jobs.common.data.images.base import ImageSet
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.export import INDEX, PoisonSet, to_8_bits, write
from jobs.poison_frogs.poisons.search import Crafts
from jobs.poison_frogs.targets.selection import Target
from jobs.poison_frogs.victims.outcomes import Outcome, rates
from jobs.poison_frogs.victims.retraining import Retraining
from service.run import Run


@dataclass(frozen=True)
class Results:
    """What came out of a run."""

    targets: Sequence[Target]
    crafts: Crafts
    outcomes: Sequence[Outcome]
    retraining: Retraining


def log(params: Params, results: Results, run: Run) -> None:
    """One row of metrics for each number of poisons. What no victim told, because all its cells failed, is absent."""
    rows = {(row["victim"], row["defence"], row["control"], row["poisons"]): row for row in rates(results.outcomes)}
    first, most = next(iter(params.victims)), params.poisons[-1]
    places = range(len(results.targets))
    begin = run.step + 1 if run.rows else 0
    for step, count in enumerate(params.poisons, begin):
        row = rows.get((first, "", "poison", count))
        if row is None:
            continue
        metrics: dict[str, float] = {"poisons": count}
        for name in ("success", "low", "high", "fitted", "confidence", "rotation", "accuracy", "accuracy_drop"):
            metrics[name] = row[name]
        others = {f"success_{name}": (name, "", "poison", count, "success") for name in params.victims}
        others |= {f"left_{name}": (first, name, "poison", count, "success") for name in params.defences}
        others |= {f"recall_{name}": (first, name, "poison", count, "recall") for name in params.defences}
        others["unpoisoned"] = (first, "", "no poison", 0, "success")
        others["flipped"] = (first, "", "flipped label", most, "success")
        metrics |= {
            name: rows[key][column] for name, (*parts, column) in others.items() if (key := tuple(parts)) in rows
        }
        metrics["inconclusive"] = row["inconclusive"] / row["n"]
        metrics["collision"] = statistics.median(
            one.collision for place in places for one in results.crafts.of(place, count)
        )
        metrics["neighbour"] = statistics.median(target.neighbour for target in results.targets)
        run.log(step=step, **metrics)


def keep(results: Results, run: Run) -> None:
    """The rates, and what became of every target and of every poison."""
    targets, crafts, outcomes = results.targets, results.crafts, results.outcomes
    run.table("success", rates(outcomes), title="Targets taken for the base class, with 95 % intervals")
    rows = [one.row(results.retraining.test.classes, crafts) for one in outcomes]
    run.table("targets", rows, title="What became of each target")
    rows = [one.row() | {"neighbour": targets[place].neighbour} for (place, _, _), one in crafts.made.items()]
    run.table("poisons", rows, title="The poisons: distances of features, and to the base for pixels in [0, 1]")
    if rows := [row for one in outcomes if one.control == "poison" for row in one.epoch_rows()]:
        run.table("epochs", rows, title="Confidence in the base class and rotation after each epoch")


def export(params: Params, results: Results, test: ImageSet, run: Run) -> None:
    """The poisons of each target in a folder of their own, as they are read back."""
    for place, target in enumerate(results.targets):
        if poisons := results.crafts.of(place, params.poisons[-1]):
            whole = PoisonSet(
                images=torch.stack([one.image for one in poisons]),
                labels=(target.base_class,) * len(poisons),
                bases=tuple(one.base for one in poisons),
                target=to_8_bits(test.images(torch.tensor([target.index])))[0],
                target_index=target.index,
                target_label=target.true_class,
                data=test.name,
                base_split="test" if params.setups is None else "train",
            )
            _export(whole, f"poisons/{place:04}_target_{target.index}", run)


def _export(poisons: PoisonSet, folder: str, run: Run) -> None:
    paths: dict[str, str] = {}

    def keep(name: str, content: bytes) -> None:
        title = f"Poisons for target {poisons.target_index}" if name == INDEX else ""
        paths[name] = run.file(f"{folder}/{name}", content, title)

    write(poisons, keep, lambda name: run.folder.read(paths[name]))
