"""Victims as cells: one retraining each, and what it makes of its targets.

A cell depends on the content of the poisons, the victim's recipe, a defence and a seed alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.passes import outputs, passes
from jobs.poison_frogs.defences.defence_params import DefenceParams
from jobs.poison_frogs.defences.quality import quality
from jobs.poison_frogs.features import BATCH, Features
from jobs.poison_frogs.poisons.crafting import Subject
from jobs.poison_frogs.targets.benchmark import fine_tuning_set
from jobs.poison_frogs.targets.setups import Setup
from jobs.poison_frogs.victims.angles import class_vector, rotation
from jobs.poison_frogs.victims.heads import Head, HeadParams, fit_head
from jobs.poison_frogs.victims.networks import FineTuneParams, PoisonedSet, ScratchParams, VictimParams, fit_network
from service.errors import RunFailedError
from service.run import Run, reserved_device


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
    """(p, channels, height, width) in [0, 1] or uint8; of no rows if no victim learns from images"""
    poison_features: Tensor
    """(p, D)"""
    clean_heads: Mapping[str, Head]
    """heads without poison, by `head_name`: what rotations are measured from, and warm starts go on from"""
    size: int = 0
    """where poisons take the place of their bases: images that a victim learns from, with them; `rows` are all then"""

    @property
    def bases(self) -> tuple[ImageSet, Tensor]:
        """The images that bases are among, and their features."""
        return (self.subject.images, self.features) if self.size else (self.test, self.test_features)

    def clean_rows(self, cell: Mapping[str, Any]) -> Tensor:
        """Which of `rows` the victim of a cell learns from beside poisons, int64 (k,)."""
        if not self.size:
            return torch.arange(len(self.rows))
        labels, classes = self.subject.images.labels.numpy(), len(self.subject.images.classes)
        others = torch.from_numpy(fine_tuning_set(labels, cell["bases"], cell["base_class"], self.size, classes))
        control = not cell["poisons"] and not cell["flips"]
        return torch.cat([others, torch.tensor(cell["bases"])]) if control else others


def head_name(victim: str, repeat: int, group: int) -> str:
    """Of a clean head."""
    return f"{victim} {repeat} {group}"


def retrain(cell: dict[str, Any], shared: Retraining) -> dict[str, Any]:
    """A cell: one victim, and what it makes of its targets.

    cell: victim, defence ("" for none), repeat, group and seed; targets, test images; label, that of the poisons, none
    without; poisons, their rows; flips, how often the first target itself is in the training set under that label; and
    where poisons take the place of their bases, these and their class.
    Returns probabilities (targets, classes); fitted, the share of poisons taken for their label; right, bool (m,), the
    test images that it classifies correctly; rotation, in degrees, of the class of the bases; detected, how well the
    defence told poisons from clean images, none without a defence;
    and for each epoch of a network the probability of that class and the rotation.
    """
    params = shared.victims[cell["victim"]]
    clean_rows = shared.clean_rows(cell)
    labels = shared.subject.images.labels[shared.rows[clean_rows]]
    poisons = torch.cat(
        [
            shared.poison_features[cell["poisons"]],
            shared.test_features[cell["targets"][:1]].expand(cell["flips"], -1),
        ]
    )
    keep = torch.ones(len(labels) + len(poisons), dtype=torch.bool)
    detected: dict[str, float] | None = None
    if cell["defence"]:
        all_labels = torch.cat([labels, torch.full((len(poisons),), cell["label"] or 0)])
        keep = shared.defences[cell["defence"]].keep(torch.cat([shared.features[clean_rows], poisons]), all_labels)
        detected = asdict(quality(keep, torch.arange(len(keep)) >= len(labels)))
    kept, kept_poisons = clean_rows[keep[: len(labels)]], keep[len(labels) :]
    if isinstance(params, HeadParams):
        result = _head(cell, params, shared, kept, poisons[kept_poisons])
    else:
        result = _network(cell, params, shared, kept, kept_poisons)
    return {**result, "detected": detected}


def _head(
    cell: dict[str, Any], params: HeadParams, shared: Retraining, kept: Tensor, poisons: Tensor
) -> dict[str, Any]:
    task = torch.tensor(shared.task)
    labels = torch.searchsorted(task, shared.subject.images.labels[shared.rows[kept]])
    base_class = 0 if cell["label"] is None else shared.task.index(cell["label"])
    features = torch.cat([shared.features[kept], poisons])
    labels = torch.cat([labels, torch.full((len(poisons),), base_class)])
    clean = shared.clean_heads.get(head_name(cell["victim"], cell["repeat"], cell["group"]))
    head = fit_head(features, labels, len(task), params, cell["seed"], clean)
    targets = shared.test_features[cell["targets"]]
    probabilities = torch.zeros(len(targets), len(shared.test.classes))
    probabilities[:, task] = head(targets).softmax(1)
    result = {
        "probabilities": probabilities,
        "fitted": float((head(poisons).argmax(1) == base_class).double().mean()) if len(poisons) else 1.0,
        "right": task[head(shared.test_features[shared.test_rows]).argmax(1)] == shared.test.labels[shared.test_rows],
        "rotation": math.nan,
        "epochs": [],
    }
    if clean is not None:
        before, after = (class_vector(each.weight, base_class) for each in (clean, head))
        result["rotation"] = rotation(before, after)
    else:  # the control: others go on from it
        result["head"] = {"weight": head.weight, "bias": head.bias, "moments": head.moments}
    return result


def _network(
    cell: dict[str, Any],
    params: FineTuneParams | ScratchParams,
    shared: Retraining,
    kept: Tensor,
    kept_poisons: Tensor,
) -> dict[str, Any]:
    images, test, base_class = shared.subject.images, shared.test, int(cell["label"] or 0)
    targets = test.images(torch.tensor(cell["targets"]))
    chosen = shared.poisons[cell["poisons"]]
    chosen = chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen
    poisons = torch.cat([chosen, targets[:1].expand(cell["flips"], -1, -1, -1)])[kept_poisons]
    data = PoisonedSet(images, shared.rows[kept], poisons, torch.full((len(poisons),), base_class))
    start = shared.subject.network.to(reserved_device())
    if isinstance(params, ScratchParams):
        assert params.classifier is not None
        start = params.classifier.build(images, cell["seed"]).to(reserved_device())
    like = targets[:1].to(reserved_device())
    before = class_vector(Features(start, like).last.weight.detach(), base_class).clone()
    epochs: list[list[float]] = []

    def watch(network: nn.Module) -> None:
        turned = rotation(before, class_vector(Features(network, like).last.weight.detach(), base_class))
        epochs.append([float(_probabilities(network, targets[:1])[0, base_class]), turned])

    network = fit_network(start, data, params, cell["seed"], watch)
    fitted = _probabilities(network, poisons).argmax(1) == base_class

    @torch.no_grad()
    def right(rows: slice) -> Tensor:
        chosen = shared.test_rows[rows]
        probabilities: Tensor = network(test.images(chosen).to(like.device)).softmax(1).cpu()
        return probabilities.argmax(1) == test.labels[chosen]

    parts = passes(right, len(shared.test_rows), network, test.shape, purpose="predictions", on_cpu=BATCH)
    return {
        "probabilities": _probabilities(network, targets),
        "fitted": float(fitted.double().mean()) if len(poisons) else 1.0,
        "right": torch.cat(list(parts)),
        # without poison there is no class to look at; of a network that began elsewhere the angle says nothing
        "rotation": math.nan if cell["label"] is None or isinstance(params, ScratchParams) else epochs[-1][1],
        "epochs": [] if cell["label"] is None else epochs,
    }


def _probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """(n, classes), on the CPU."""
    return outputs(network, images, lambda logits: logits.softmax(1), on_cpu=BATCH)


Unpoisoned = Mapping[tuple[str, str, int, int], dict[str, Any]]  # by victim, defence, repeat, group: of `retrain`


@dataclass(frozen=True)
class Group:
    """Targets of victims that learn from the same clean images, so that they have one control."""

    targets: list[int]
    """test images"""
    replaced: dict[str, Any]
    """bases that poisons take the place of, and base_class, theirs; {} if they are added"""


def groups_of(setups: Sequence[Setup]) -> list[Group]:
    """In a benchmark each target has a training set, and so a control, of its own."""
    return [
        Group([each.target_index], {"bases": list(each.base_indices), "base_class": each.base_class}) for each in setups
    ]


def training_labels(groups: Sequence[Group], images: ImageSet, size: int) -> Iterator[Tensor]:
    """Of each group the labels of the images that its control learns from: int64 (k,).

    size: images that a victim learns from. InputError if a class has too few of them.
    """
    labels, classes = images.labels, len(images.classes)
    for group in groups:
        bases, base_class = group.replaced["bases"], group.replaced["base_class"]
        others = fine_tuning_set(labels.numpy(), bases, base_class, size, classes)
        yield torch.cat([labels[torch.from_numpy(others)], labels[torch.tensor(bases)]])


def clean_heads(shared: Retraining, unpoisoned: Unpoisoned) -> dict[str, Head]:
    """The heads of the controls that had no defence, by `head_name`."""
    return {
        head_name(name, repeat, group): Head(**result["head"])
        for (name, defence, repeat, group), result in unpoisoned.items()
        if isinstance(shared.victims[name], HeadParams) and not defence
    }


def controls(shared: Retraining, groups: Sequence[Group], repeats: int, run: Run) -> Unpoisoned:
    """Victims without poison, for each group. RunFailedError if one fails."""
    keys = [
        (name, defence, repeat, group)
        for name in shared.victims
        for defence in ("", *shared.defences)
        for repeat in range(repeats)
        for group in range(len(groups))
    ]
    cells = [
        {
            "victim": name,
            "defence": defence,
            "repeat": repeat,
            "group": group,
            "targets": groups[group].targets,
            "label": None,
            "poisons": [],
            "flips": 0,
            "seed": run.seed_for("victim", name, repeat),
            **groups[group].replaced,
        }
        for name, defence, repeat, group in keys
    ]
    results = run.map_across_trials(retrain, cells, shared, name="controls")
    if any(result is None for result in results):
        raise RunFailedError("a victim without poison failed, without which none with poison can be judged")
    return dict(zip(keys, results, strict=True))
