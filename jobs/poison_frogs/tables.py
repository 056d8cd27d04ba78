"""What a run writes down: rows of metrics, tables, warnings, and the poisons as files."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from jobs.common.data.images.base import ImageSet
from jobs.poison_frogs.defences.detectors import starved
from jobs.poison_frogs.defences.filters import DeepKnn
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.export import INDEX, PoisonSet, to_8_bits, write
from jobs.poison_frogs.poisons.search import Crafts
from jobs.poison_frogs.targets.selection import Target
from jobs.poison_frogs.victims.heads import HeadParams
from jobs.poison_frogs.victims.retraining import Retraining
from jobs.poison_frogs.victims.verdicts import Outcome, rates
from service.run import Run


def log(params: Params, targets: Sequence[Target], crafts: Crafts, rows: Sequence[dict[str, Any]], run: Run) -> None:
    """One row of metrics for each number of poisons."""
    by = {(row["victim"], row["defence"], row["control"], row["poisons"]): row for row in rows}
    first, most = next(iter(params.victims)), params.poisons[-1]
    begin = run.step + 1 if run.rows else 0
    for step, count in enumerate(params.poisons, begin):
        row = by.get((first, "", "poison", count))
        if row is None:
            continue
        told = ("success", "low", "high", "fitted", "confidence", "rotation", "accuracy", "accuracy_drop")
        near = [one.collision for place in range(len(targets)) for one in crafts.of(place, count)]
        metrics = {
            **{"poisons": count, **{name: row[name] for name in told}},
            **{f"success_{name}": by[name, "", "poison", count]["success"] for name in params.victims},
            **{f"left_{name}": by[first, name, "poison", count]["success"] for name in params.defences},
            **{f"recall_{name}": by[first, name, "poison", count]["recall"] for name in params.defences},
            "inconclusive": row["inconclusive"] / row["n"],
            "unpoisoned": by[first, "", "no poison", 0]["success"],
            "flipped": by[first, "", "flipped label", most]["success"],
            "collision": statistics.median(near),
            "neighbour": statistics.median(target.neighbour for target in targets),
        }
        run.log(step=step, **{name: value for name, value in metrics.items() if math.isfinite(value)})


def keep(
    params: Params,
    targets: Sequence[Target],
    crafts: Crafts,
    outcomes: Sequence[Outcome],
    shared: Retraining,
    run: Run,
) -> None:
    """The rates, what became of every target and of every poison, and what to know about the numbers."""
    run.table("success", rates(outcomes), title="Targets taken for the base class, with 95 % intervals")
    rows = [one.row(shared.test.classes, crafts) for one in outcomes]
    run.table("targets", rows, title="What became of each target")
    rows = [one.row() | {"neighbour": targets[place].neighbour} for (place, _, _), one in crafts.made.items()]
    run.table("poisons", rows, title="The poisons: distances of features, and to the base for pixels in [0, 1]")
    if found := warnings(params, targets, crafts, shared):
        run.table("warnings", [{"warning": each} for each in found], title="What to know about these numbers")
    if rows := [row for one in outcomes if one.control == "poison" for row in one.epoch_rows()]:
        run.table("epochs", rows, title="Confidence in the base class and rotation after each epoch")


def warnings(params: Params, targets: Sequence[Target], crafts: Crafts, shared: Retraining) -> list[str]:
    """What makes the numbers say less than they seem to."""
    found, made = [], crafts.made.values()
    if wrong := [target.index for target in targets if target.margin <= 0]:
        found.append(f"{len(wrong)} targets are misclassified without poison, which flatters success: {wrong[:10]}")
    if copies := [target.index for target in targets if target.neighbour == 0]:
        found.append(f"{len(copies)} targets are copies of training images, which stand against poisons: {copies[:10]}")
    if lacking := sum(crafts.keys(at, count) is None for at in range(len(targets)) for count in params.poisons):
        found.append(f"{lacking} targets lack poisons, because cells failed: they are left out of the rates")
    if odd := sum(one.stopped == "not finite" for one in made):
        found.append(f"{odd} crafts met values that are not finite and stopped there")
    if still := sum(one.change == 0 for one in made):
        # of a convex polytope the simplex gives some no weight
        why = "they have no part in it" if crafts.together else "the steps are too small, or β is too large"
        found.append(f"{still} poisons are their bases unchanged: {why}")
    far = sum(one.collision >= targets[at].neighbour for (at, _, _), one in crafts.made.items())
    if far and not crafts.together:  # those that are made together need not be near, each by itself
        found.append(f"{far} of {len(made)} poisons are no nearer to their target than its nearest training image is")
    count, size = shared.size or len(shared.rows), shared.features.shape[1]
    heads = {name: victim for name, victim in params.victims.items() if isinstance(victim, HeadParams)}
    if heads and size < count:
        found.append(f"{size} features for {count:,} training images: a head cannot fit every one of them")
    for name, head in heads.items():
        if head.l2 >= 1e-3:
            found.append(f"{name}: a penalty of {head.l2:g} keeps a head from fitting single images, poisons or not")
    if params.repeats == 1 and (names := ", ".join(name for name in params.victims if name not in heads)):
        found.append(f"{names}: one victim for each target; with another seed some end otherwise, see `repeats`")
    # all training sets have as many images of a class
    some = {"bases": list(targets[0].bases), "base_class": targets[0].aim, "poisons": [], "flips": 0}
    labels = shared.subject.images.labels[shared.rows[shared.learnt(some)]]
    for name, defence in params.defences.items():
        if isinstance(defence, DeepKnn) and (classes := starved(labels, defence.k)):
            told = ", ".join(shared.test.classes[each] for each in classes)
            found.append(f"{name}: k = {defence.k} can drop all images of {told}, which have too few")
    return found


def export(params: Params, targets: Sequence[Target], crafts: Crafts, test: ImageSet, run: Run) -> None:
    """The poisons of each target in a folder of their own, as they are read back."""
    for place, target in enumerate(targets):
        if poisons := crafts.of(place, params.poisons[-1]):
            whole = PoisonSet(
                images=torch.stack([one.image for one in poisons]),
                labels=(target.aim,) * len(poisons),
                bases=tuple(one.base for one in poisons),
                target=to_8_bits(test.images(torch.tensor([target.index])))[0],
                target_index=target.index,
                target_label=target.own,
                data=test.name,
                base_split="test" if params.setups is None else "train",
            )
            _export(whole, f"poisons/{place:04}_target_{target.index}", run)


def _export(poisons: PoisonSet, folder: str, run: Run) -> None:
    def keep(name: str, content: bytes) -> None:
        title = f"Poisons for target {poisons.target_index}" if name == INDEX else ""
        run.file(f"{folder}/{name}", content, title)

    write(poisons, keep, lambda name: run.folder.read(f"files/{folder}/{name}"))
