"""What became of a target, and how often: victims as cells, verdicts, rates with their intervals, rotations.

A cell is one retraining. It depends on the content of the poisons, the victim's recipe, a defence and a seed alone.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jobs.common.datasets.base import ImageSet
from jobs.common.intervals import wilson
from jobs.common.training import device
from jobs.poison_frogs.defences import quality
from jobs.poison_frogs.features import BATCH, Features
from jobs.poison_frogs.search import Crafts, Subject
from jobs.poison_frogs.selection import Target
from jobs.poison_frogs.victims import (
    DefenceParams,
    FineTuneParams,
    Head,
    HeadParams,
    PoisonedSet,
    ScratchParams,
    VictimParams,
    fit_head,
    fit_network,
)
from service.errors import RunFailedError
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


def rotation(before: Tensor, after: Tensor) -> float:
    """The angle between two weight vectors (D,) of a class, in degrees. NaN if one of them is zero."""
    a, b = before.double(), after.double()
    # the difference and the sum of the unit vectors: exact where the arc cosine of a product is not
    a, b = a / a.norm(), b / b.norm()
    return math.degrees(2 * math.atan2(float((a - b).norm()), float((a + b).norm())))


def class_vector(weight: Tensor, row: int) -> Tensor:
    """The weights (D,) of a class against the mean of all: what a softmax over weight (classes, D) depends on."""
    return weight[row] - weight.mean(0)


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


@dataclass(frozen=True)
class Retraining:
    """What all victims share."""

    subject: Subject
    """with the training images"""
    rows: Tensor
    """int64 (n,): the training images that victims learn from"""
    test: ImageSet
    test_rows: Tensor
    """int64 (m,): the test images that their accuracy is measured on"""
    task: tuple[int, ...]
    """the classes that heads tell apart"""
    features: Tensor
    """(n, D) of the training images"""
    test_features: Tensor
    """(all of the test split, D)"""
    victims: Mapping[str, VictimParams]
    defences: Mapping[str, DefenceParams]
    poisons: Tensor
    """(p, channels, height, width) in [0, 1] or uint8; of no rows if no victim looks at images"""
    poison_features: Tensor
    """(p, D)"""
    clean: Mapping[str, Head]
    """heads without poison, by "victim repeat": what rotations are measured from, and warm starts go on from"""


def retrain(cell: dict[str, Any], shared: Retraining) -> dict[str, Any]:
    """A cell: one victim, and what it makes of its targets.

    cell: victim, defence ("" for none), repeat and seed; targets, test images; aim, the label of the poisons; poisons,
    their rows; flips, how often the first target itself is in the training set under that label.
    Returns probabilities (targets, classes); fitted, the share of poisons taken for their label; right, bool (m,), the
    test images that it classifies correctly; rotation, in degrees, of the class of the bases; what the defence dropped;
    and for each epoch of a network the probability of that class and the rotation.
    """
    params = shared.victims[cell["victim"]]
    labels = shared.subject.images.labels[shared.rows]
    poisons = torch.cat(
        [
            shared.poison_features[cell["poisons"]],
            shared.test_features[cell["targets"][:1]].expand(cell["flips"], -1),
        ]
    )
    keep = torch.ones(len(labels) + len(poisons), dtype=torch.bool)
    dropped = {"recall": math.nan, "precision": math.nan, "clean_removed": math.nan}
    if cell["defence"]:
        everything = torch.cat([labels, torch.full((len(poisons),), cell["aim"] or 0)])
        keep = shared.defences[cell["defence"]].keep(torch.cat([shared.features, poisons]), everything)
        found = quality(keep, torch.arange(len(keep)) >= len(labels))
        dropped = {name: getattr(found, name) for name in dropped}
    kept, learnt = keep[: len(labels)], keep[len(labels) :]
    if isinstance(params, HeadParams):
        return dropped | _head(cell, params, shared, kept, poisons[learnt])
    return dropped | _network(cell, params, shared, kept, learnt)


def _head(
    cell: dict[str, Any], params: HeadParams, shared: Retraining, kept: Tensor, poisons: Tensor
) -> dict[str, Any]:
    task = torch.tensor(shared.task)
    labels = torch.searchsorted(task, shared.subject.images.labels[shared.rows[kept]])
    aim = 0 if cell["aim"] is None else shared.task.index(cell["aim"])
    features = torch.cat([shared.features[kept], poisons])
    labels = torch.cat([labels, torch.full((len(poisons),), aim)])
    clean = shared.clean.get(f"{cell['victim']} {cell['repeat']}")
    head = fit_head(features, labels, len(task), params, cell["seed"], clean)
    targets = shared.test_features[cell["targets"]]
    probabilities = torch.zeros(len(targets), len(shared.test.classes))
    probabilities[:, task] = head(targets).softmax(1)
    result = {
        "probabilities": probabilities,
        "fitted": float((head(poisons).argmax(1) == aim).double().mean()) if len(poisons) else 1.0,
        "right": task[head(shared.test_features[shared.test_rows]).argmax(1)] == shared.test.labels[shared.test_rows],
        "rotation": rotation(class_vector(clean.weight, aim), class_vector(head.weight, aim)) if clean else math.nan,
        "epochs": [],
    }
    if clean is None:  # the control: others go on from it
        result["head"] = {"weight": head.weight, "bias": head.bias, "moments": head.moments}
    return result


def _network(
    cell: dict[str, Any],
    params: FineTuneParams | ScratchParams,
    shared: Retraining,
    kept: Tensor,
    learnt: Tensor,
) -> dict[str, Any]:
    images, test, aim = shared.subject.images, shared.test, int(cell["aim"] or 0)
    targets = test.images(torch.tensor(cell["targets"]))
    chosen = shared.poisons[cell["poisons"]]
    chosen = chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen
    poisons = torch.cat([chosen, targets[:1].expand(cell["flips"], -1, -1, -1)])[learnt]
    data = PoisonedSet(images, shared.rows[kept], poisons, torch.full((len(poisons),), aim))
    start = shared.subject.network.to(device())
    if isinstance(params, ScratchParams):
        assert params.classifier is not None
        start = params.classifier.build(images, cell["seed"]).to(device())
    like = targets[:1].to(device())
    before = class_vector(Features(start, like).last.weight.detach(), aim).clone()
    epochs: list[list[float]] = []

    def watch(network: nn.Module) -> None:
        turned = rotation(before, class_vector(Features(network, like).last.weight.detach(), aim))
        epochs.append([float(_probabilities(network, targets[:1])[0, aim]), turned])

    network = fit_network(start, data, params, cell["seed"], watch)
    fitted = _probabilities(network, poisons).argmax(1) == aim
    right = [
        _probabilities(network, test.images(rows)).argmax(1) == test.labels[rows]
        for rows in torch.split(shared.test_rows, BATCH)
    ]
    return {
        "probabilities": _probabilities(network, targets),
        "fitted": float(fitted.double().mean()) if len(poisons) else 1.0,
        "right": torch.cat(right),
        # without poison there is no class to look at; of a network that began elsewhere the angle says nothing
        "rotation": math.nan if cell["aim"] is None or isinstance(params, ScratchParams) else epochs[-1][1],
        "epochs": [] if cell["aim"] is None else epochs,
    }


def _probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """(n, classes), on the CPU."""
    with torch.no_grad():
        return torch.cat([network(some.to(device())).softmax(1).cpu() for some in torch.split(images, BATCH)])


Unpoisoned = Mapping[tuple[str, str, int], dict[str, Any]]  # by victim, defence, repeat: what `retrain` returns


def controls(shared: Retraining, targets: Tensor, repeats: int, run: Run) -> Unpoisoned:
    """Victims without poison. targets: int64 (t,), test images. RunFailedError if one fails."""
    keys = [
        (name, defence, repeat)
        for name in shared.victims
        for defence in ("", *shared.defences)
        for repeat in range(repeats)
    ]
    cells = [
        {
            **{"victim": name, "defence": defence, "repeat": repeat, "seed": run.seed_for("victim", name, repeat)},
            **{"targets": targets.tolist(), "aim": None, "poisons": [], "flips": 0},
        }
        for name, defence, repeat in keys
    ]
    results = run.map(retrain, cells, shared, name="controls")
    if any(result is None for result in results):
        raise RunFailedError("a victim without poison failed, without which none with poison can be judged")
    return dict(zip(keys, results, strict=True))


def verdicts_of(
    shared: Retraining,
    attacked: Tensor,
    targets: Sequence[Target],
    crafts: Crafts,
    counts: Sequence[int],
    unpoisoned: Unpoisoned,
    run: Run,
) -> list[Outcome]:
    """A victim of each kind, defence and repeat for each target and number of poisons, and for the flipped label.

    attacked: the test images that the controls looked at. crafts: in the order of the poisons of `shared`. A target
    that lacks a poison is left out of the numbers that need it. The seed of a victim does not depend on the number.
    """
    rows = {key: row for row, key in enumerate(crafts.made)}
    cells: list[dict[str, Any]] = []
    meant: list[tuple[Control, int, int]] = []
    for victim, defence, repeat in unpoisoned:
        for place, target in enumerate(targets):
            cell: dict[str, Any] = {"victim": victim, "defence": defence, "repeat": repeat, "targets": [target.index]}
            cell |= {"aim": target.aim, "seed": run.seed_for("victim", victim, repeat, target.index)}
            for count in counts:
                if (keys := crafts.keys(place, count)) is not None:
                    cells.append(cell | {"poisons": [rows[key] for key in keys], "flips": 0})
                    meant.append(("poison", count, place))
            if not defence:
                cells.append(cell | {"poisons": [], "flips": counts[-1]})
                meant.append(("flipped label", counts[-1], place))
    results = run.map(retrain, cells, shared, name="victims")

    where = {int(index): row for row, index in enumerate(attacked)}
    used = [{target.index} for target in targets]
    for (place, _, _), one in crafts.made.items():
        used[place].add(one.base)
    counted = [~torch.isin(shared.test_rows, torch.tensor(sorted(each))) for each in used]

    def judged(
        victim: str, defence: str, repeat: int, control: Control, count: int, place: int, row: int, result: Any
    ) -> Outcome:
        target, mask = targets[place], counted[place]
        probabilities = result["probabilities"][row]
        clean = unpoisoned[victim, "", repeat]["right"][mask].double().mean()
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
        judged(*key, "no poison", 0, place, where[target.index], result)
        for key, result in unpoisoned.items()
        for place, target in enumerate(targets)
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
                **{name: _mean(getattr(one, name) for one in own) for name in ("recall", "precision", "clean_removed")},
            }
        )
    return rows


def _mean(values: Iterable[float]) -> float:
    """Of those that are not NaN; NaN if none is left."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan
