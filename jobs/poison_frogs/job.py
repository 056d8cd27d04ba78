"""Poison frogs: clean-label poisons, the victims that learn from them, and what becomes of the targets.

A poison is a correctly labelled image, changed so that the network sees in it the features of a target: an image of
another class, which a victim that has learnt the poison takes for the class of the poison. The attacker changes no
label and knows the network, not the training set. Features are computed once, poisons are crafted in batches, victims
are retrained one a cell; a search over the number of poisons uses each poison again. Every run has a control without
poison and one with the target itself under a flipped label, which is the most that any poison could do.

Metrics, for `sweep.metric` (rates are shares of the targets in [0, 1]); one row for each number of poisons, ascending:
    train_loss, train_accuracy      while the network is trained here
    poisons                         for each target
    success_NAME, success           targets that a kind of victim takes for the base class; of the first kind
    left_NAME                       the same of the first kind behind a defence; recall_NAME: poisons that it dropped
    low, high                       the 95 % interval of `success`
    fitted                          poisons that the victims of the first kind take for their label
    inconclusive                    targets of victims that did not learn their poisons, and that did not fall
    unpoisoned, flipped             the same rate without poison, and with the target itself under the base's label
    confidence                      median probability of the base class for the targets
    rotation                        mean angle by which the base class's weights turned, in degrees
    accuracy, accuracy_drop         mean on clean test images, and what the poison took of it
    collision, neighbour            median distances of the poisons and of the nearest training image to the target

Specs to begin with: configs/poison_frogs/.

Source: Shafahi et al. 2018, "Poison Frogs! Targeted Clean-Label Poisoning Attacks on Neural Networks".
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

import torch
from pydantic import Field, StringConstraints, field_validator, model_validator
from torch import Tensor, nn

from jobs.common.classifier_params import ClassifierParams, check_fit
from jobs.common.classifiers import ARCHITECTURES
from jobs.common.datasets import DATASETS, DataParams
from jobs.common.datasets.base import ImageSet
from jobs.common.imports import resolve
from jobs.common.network_params import StoredNetwork, TrainedNetwork
from jobs.common.params import StudyParams
from jobs.common.supervised import Training, train
from jobs.common.training import device
from jobs.poison_frogs import estimation, export, figures
from jobs.poison_frogs.collision import Paper, Recipe
from jobs.poison_frogs.search import AttackParams, Crafting, Crafts, RetryParams, Subject, crafts_of, features_of
from jobs.poison_frogs.selection import (
    BaseParams,
    PairParams,
    Scene,
    Target,
    TargetParams,
    class_index,
    nearest,
    select,
)
from jobs.poison_frogs.verdicts import Outcome, Retraining, controls, rates, verdicts_of
from jobs.poison_frogs.victims import DefenceParams, Head, HeadParams, ScratchParams, VictimParams
from service.errors import InputError, RunFailedError
from service.models import CardDraft, TensorSpec
from service.run import Run, Trial

FAN_OUT = True

Name = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,31}$")]


class Params(StudyParams):
    """A network, targets and bases, how poisons are made, and who learns from them."""

    data: DataParams = Field(DataParams(), description="the images; targets and bases are of the test split")
    network: Annotated[TrainedNetwork | StoredNetwork, Field(discriminator="kind")] = Field(
        TrainedNetwork(), description="the network that poisons are made for"
    )
    layers: tuple[str, ...] = Field((), description="layers whose output is a feature; none: before the last linear")
    task: tuple[str, ...] = Field((), description="classes that the victims learn to tell apart; none: all")
    pairs: tuple[PairParams, ...] = Field(min_length=1, description="classes of the targets and of their bases")
    targets: TargetParams = Field(TargetParams(), description="which images are attacked")
    bases: BaseParams = Field(BaseParams(), description="which images become poisons")
    attack: AttackParams = Field(Paper(), description="how poisons are made of bases")
    surrogates: int = Field(
        0, ge=0, le=100, description="further networks, trained as the first with other seeds, that are crafted against"
    )
    grey_box: bool = Field(False, description="craft against the surrogates alone, not against the network itself")
    retry: RetryParams | None = Field(None, description="try other bases; none: what came out is used")
    poisons: tuple[int, ...] = Field(
        (1,), min_length=1, max_length=100, description="poisons for a target: of each number its first so many"
    )
    victims: dict[Name, VictimParams] = Field(
        {"head": HeadParams()}, min_length=1, description="who learns from them, by names of your choice"
    )
    defences: dict[Name, DefenceParams] = Field(
        {}, description="filters of the training set, by names of your choice; each before every kind of victim"
    )
    repeats: int = Field(1, ge=1, le=1000, description="victims of each kind, with seeds of their own")
    batch: int = Field(64, ge=1, le=10_000, description="poisons that are crafted at once")
    export: bool = Field(False, description="the poisons of each target as PNG and JSON")
    show: int = Field(6, ge=0, le=16, description="poisons in the picture; 0: no picture")
    publish_as: str = Field("", description="name of a network trained here in the model store; default: made of both")

    @field_validator("poisons")
    @classmethod
    def _counts(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        """At least 1 and distinct; ascending from here on."""
        if min(counts) < 1:
            raise ValueError(f"{min(counts)} is not allowed, at least 1 is: the control without poison is made anyway")
        if len(set(counts)) < len(counts):
            raise ValueError(f"{list(counts)} names a number twice")
        return tuple(sorted(counts))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """What is named exists, and the parts know each other."""
        try:
            resolve(self.data.name, DATASETS, "data set")
            for each in self.classifiers:
                resolve(each.name, ARCHITECTURES, "classifier")
        except InputError as error:
            raise ValueError(str(error)) from error
        if len({(pair.target, pair.base) for pair in self.pairs}) < len(self.pairs):
            raise ValueError("pairs: a pair is named twice")
        for pair in self.pairs:
            if pair.target == pair.base:
                raise ValueError(f"pairs: target and base are both {pair.target!r}, there is nothing to attack")
            if self.task and not {pair.target, pair.base} <= set(self.task):
                raise ValueError(f"pairs: {pair.target!r} and {pair.base!r} are not both of the task {list(self.task)}")
        if self.task and len(set(self.task)) < max(2, len(self.task)):
            raise ValueError(f"task: {list(self.task)} is not two classes or more, each once")
        if isinstance(self.attack, Recipe):
            if self.surrogates or self.layers and self.grey_box:
                raise ValueError(f"surrogates: {self.attack.kind} crafts against one network; polytope takes several")
            if self.export and self.attack.quantise == "none":
                raise ValueError("export: needs quantised poisons, and attack.quantise is none")
            if self.attack.stop_ratio is not None and self.attack.stop_ratio >= 1:
                raise ValueError("attack.stop_ratio: at 1 and above a poison is no nearer than training images are")
        elif self.retry is not None:
            raise ValueError("retry: poisons that are made together have no next base")
        if self.retry is not None and self.bases.rule == "single":
            raise ValueError("retry: with a single base there is no other to try")
        if self.surrogates and self.network.kind != "train":
            raise ValueError("surrogates: they are trained as the network is, so it has to be trained here")
        if self.grey_box and not self.surrogates:
            raise ValueError("grey_box: there are no surrogates to craft against")
        for name, victim in self.victims.items():
            if isinstance(victim, ScratchParams) and victim.classifier is None and self.network.kind != "train":
                raise ValueError(f"victims.{name}.classifier: needed, as the network is not trained here")
            if isinstance(victim, HeadParams) and victim.start == "warm" and victim.solver == "lbfgs":
                raise ValueError(f"victims.{name}: L-BFGS converges to the same head from anywhere; start cold")
        if self.layers and any(isinstance(victim, HeadParams) for victim in self.victims.values()):
            raise ValueError("layers: a head learns from what is before the last linear layer; name no layers")
        if "" in self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers: {list(self.layers)} are not names of layers, each once")
        return self

    @property
    def classifiers(self) -> list[ClassifierParams]:
        """All that are built here."""
        own = [self.network.classifier] if isinstance(self.network, TrainedNetwork) else []
        scratch = [each.classifier for each in self.victims.values() if isinstance(each, ScratchParams)]
        return own + [each for each in scratch if each is not None]

    @property
    def model_name(self) -> str:
        """Under which name a network trained here is published."""
        assert isinstance(self.network, TrainedNetwork)
        data, network = (name.rpartition(":")[2] for name in (self.data.name, self.network.classifier.name))
        return self.publish_as or f"{data}-{network}-frogs".replace("_", "-").lower()


def run(params: Params, run: Run) -> None:
    """Find the network, select targets and bases, craft the poisons, retrain the victims, and judge them."""
    learnt, test = params.data.load("train"), params.data.load("test")
    task = tuple(sorted(class_index(test.classes, name) for name in params.task or test.classes))
    network, *surrogates = _networks(params, learnt, run)
    rows, test_rows = (_of_classes(images, task) for images in (learnt, test))
    on_train, on_test = Subject(network, learnt, params.layers), Subject(network, test, params.layers)
    features, _ = features_of(on_train, rows, run, "train_features")
    test_features, logits = features_of(on_test, torch.arange(len(test)), run, "test_features")

    victims = _complete(params)
    shared = Retraining(
        *(on_train, rows, test, test_rows, task, features, test_features, victims, params.defences),
        poisons=torch.empty(0, *test.shape),
        poison_features=features[:0],
        clean={},
    )
    attacked = _of_classes(test, [class_index(test.classes, pair.target) for pair in params.pairs])
    unpoisoned = controls(shared, attacked, params.repeats, run)
    heads = {f"{name} {repeat}": Head(**unpoisoned[name, "", repeat]["head"]) for name, repeat in _heads(params)}
    if (first := f"{next(iter(victims))} 0") in heads:  # whether a target is easy is then for the head to say
        logits = torch.full((len(test), len(test.classes)), -torch.inf)
        logits[:, list(task)] = heads[first](test_features)

    targets = _targets(params, Scene(test.classes, test.labels, test_features, logits, torch.empty(0)), features, run)
    crafting = Crafting(on_test, params.attack, tuple(surrogates), params.grey_box)
    crafts = crafts_of(crafting, targets, params.poisons, params.batch, params.retry, run)
    if not crafts.made:
        raise RunFailedError("no poison could be crafted")
    shared = replace(shared, poison_features=torch.stack([each.features for each in crafts.made.values()]), clean=heads)
    if any(not isinstance(each, HeadParams) for each in victims.values()):
        shared = replace(shared, poisons=torch.stack([each.image for each in crafts.made.values()]))
    outcomes = verdicts_of(shared, attacked, targets, crafts, params.poisons, unpoisoned, run)

    _log(params, targets, crafts, rates(outcomes), run)
    _tables(params, targets, crafts, outcomes, shared, run)
    figures.draw(targets, crafts, params.poisons[-1], outcomes, shared, params.show, run)
    if params.export:
        _export(params, targets, crafts, test, run)


def estimate(params: Params) -> dict[str, Any]:
    """What a trial would compute and how long it would take, for `assay check`."""
    network = params.network
    return estimation.estimate(
        params.data,
        network.classifier if isinstance(network, TrainedNetwork) else network,
        params.task,
        [(pair.target, pair.targets or params.targets.count) for pair in params.pairs],
        params.poisons,
        params.attack,
        1 if params.retry is None else params.retry.tries,
        params.victims,
        (1 + len(params.defences)) * params.repeats,
        network.training.epochs * (1 + params.surrogates) if isinstance(network, TrainedNetwork) else 0,
    )


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """Every trial's rates in one table, and success against the number of poisons in one figure."""
    tables = {trial.label: table for trial in trials if (table := trial.table("success"))}
    if len(tables) < 2:
        return
    run.table("success", [{"trial": label, **row} for label, rows in tables.items() for row in rows], title="All rates")
    curves = [
        replace(curve, label=f"{label}: {curve.label}")
        for label, rows in tables.items()
        for curve in figures.curves(rows)
    ]
    run.figure("success", figures.success(curves), title="Success of every trial, with 95 % intervals")


def _networks(params: Params, learnt: ImageSet, run: Run) -> list[nn.Module]:
    """The attacked network and the surrogates, on the CPU: trained, and the first of them saved; or loaded."""
    if not isinstance(params.network, TrainedNetwork):
        model = params.network.load(run)
        model.check_task("classification")
        if any(not isinstance(each, HeadParams) for each in params.victims.values()):
            check_fit(model.network, learnt, model.name)
        return [model.network]
    classifier = params.network.classifier
    names = ["", *(f"surrogate_{number}_" for number in range(1, params.surrogates + 1))]
    networks = [classifier.build(learnt, run.seed_for("weights", name)).to(device()) for name in names]
    check_fit(networks[0], learnt, classifier.name)
    train(
        [Training(name, each, learnt, params.network.training) for name, each in zip(names, networks, strict=True)], run
    )
    run.save_model(params.model_name, networks[0], _card(params, learnt, run.metrics))
    return [each.cpu().eval() for each in networks]


def _complete(params: Params) -> dict[str, VictimParams]:
    """The victims; a fresh network of no architecture of its own is of the attacked one."""
    own = params.network.classifier if isinstance(params.network, TrainedNetwork) else None
    return {
        name: victim.model_copy(update={"classifier": victim.classifier or own})
        if isinstance(victim, ScratchParams)
        else victim
        for name, victim in params.victims.items()
    }


def _heads(params: Params) -> list[tuple[str, int]]:
    """The victims that are heads, and their repeats."""
    heads = [name for name, victim in params.victims.items() if isinstance(victim, HeadParams)]
    return [(name, repeat) for name in heads for repeat in range(params.repeats)]


def _of_classes(images: ImageSet, classes: Sequence[int]) -> Tensor:
    """Which images are of these classes: int64 (n,). InputError if there are none."""
    found = torch.isin(images.labels, torch.tensor(sorted(set(classes)))).nonzero().flatten()
    if not len(found):
        names = ", ".join(images.classes[each] for each in sorted(set(classes)))
        raise InputError(f"{images.name} has no image of {names}")
    return found


def _targets(params: Params, scene: Scene, features: Tensor, run: Run) -> list[Target]:
    """The targets of all pairs. features: (n, D) of the training images."""
    names = {name for pair in params.pairs for name in (pair.target, pair.base)}
    some = torch.isin(scene.labels, torch.tensor([class_index(scene.classes, name) for name in names]))
    neighbours = torch.full((len(scene.labels),), torch.nan)
    neighbours[some] = nearest(scene.features[some], features)
    scene = replace(scene, neighbours=neighbours)
    found = []
    for pair in params.pairs:
        seed = run.seed_for("pair", pair.target, pair.base)
        found += select(scene, pair, params.targets, params.bases, params.poisons[-1], seed)
    return found


def _log(params: Params, targets: Sequence[Target], crafts: Crafts, rows: Sequence[dict[str, Any]], run: Run) -> None:
    """One row of metrics for each number of poisons."""
    by = {(row["victim"], row["defence"], row["control"], row["poisons"]): row for row in rows}
    first, most = next(iter(params.victims)), params.poisons[-1]
    begin = int(run.rows[-1]["step"]) + 1 if run.rows else 0
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


def _tables(
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
    if warnings := _warnings(params, targets, crafts, shared.features):
        run.table("warnings", [{"warning": each} for each in warnings], title="What to know about these numbers")
    if rows := [row for one in outcomes if one.control == "poison" for row in one.epoch_rows()]:
        run.table("epochs", rows, title="Confidence in the base class and rotation after each epoch")


def _warnings(params: Params, targets: Sequence[Target], crafts: Crafts, features: Tensor) -> list[str]:
    """What makes the numbers say less than they seem to. features: (n, D) of the training images."""
    found, made = [], crafts.made.values()
    if wrong := [target.index for target in targets if target.margin <= 0]:
        found.append(f"{len(wrong)} targets are misclassified without poison, which flatters success: {wrong[:10]}")
    if lacking := sum(crafts.keys(at, count) is None for at in range(len(targets)) for count in params.poisons):
        found.append(f"{lacking} targets lack poisons, because cells failed: they are left out of the rates")
    if odd := sum(one.stopped == "not finite" for one in made):
        found.append(f"{odd} crafts met values that are not finite and stopped there")
    if still := sum(one.change == 0 for one in made):
        found.append(f"{still} poisons are their bases unchanged: the steps are too small, or β is too large")
    if far := sum(one.collision >= targets[at].neighbour for (at, _, _), one in crafts.made.items()):
        found.append(f"{far} of {len(made)} poisons are no nearer to their target than its nearest training image is")
    count, size = features.shape
    if _heads(params) and size < count:
        found.append(f"{size} features for {count:,} training images: a head cannot fit every one of them")
    for name, victim in params.victims.items():
        if isinstance(victim, HeadParams) and victim.l2 >= 1e-3:
            found.append(f"{name}: a penalty of {victim.l2:g} keeps a head from fitting single images, poisons or not")
    return found


def _export(params: Params, targets: Sequence[Target], crafts: Crafts, test: ImageSet, run: Run) -> None:
    """The poisons of each target in a folder of their own."""
    for place, target in enumerate(targets):
        if poisons := crafts.of(place, params.poisons[-1]):
            image = export.to_8_bits(test.images(torch.tensor([target.index])))[0]
            files = export.encode(
                export.PoisonSet(
                    images=torch.stack([one.image for one in poisons]),
                    labels=(target.aim,) * len(poisons),
                    bases=tuple(one.base for one in poisons),
                    target=image,
                    target_index=target.index,
                    target_label=target.own,
                    data=test.name,
                )
            )
            for name, content in files.items():
                title = f"Poisons for target {target.index}" if name == export.INDEX else ""
                run.file(f"poisons/{target.index}/{name}", content, title=title)


def _card(params: Params, images: ImageSet, metrics: dict[str, float]) -> CardDraft:
    assert isinstance(params.network, TrainedNetwork)
    classifier = params.network.classifier
    return CardDraft(
        architecture=classifier.architecture,
        arguments=classifier.arguments(images),
        study="poison_frogs",
        task="classification",
        inputs=(TensorSpec(name="images", datatype="FP32", shape=(-1, *images.shape)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, len(images.classes))),),
        settings={"classes": list(images.classes), "data": params.data.name},
        metrics=metrics,
        description=f"{images.name} by {classifier.name.rpartition(':')[2]}, clean: what poisons were crafted for",
    )
