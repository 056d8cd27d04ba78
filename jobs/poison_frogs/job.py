"""Poison frogs: clean-label poisons, the victims that learn from them, and what becomes of the targets.

A poison is a correctly labelled image, changed so that the network sees in it the features of a target: an image of
another class, which a victim that has learnt the poison takes for the class of the poison. The attacker changes no
label and knows the network, not the training set. Features are computed once, poisons are crafted in batches, victims
are retrained one a cell; a search over the number of poisons uses each poison again. Every run has a control without
poison and one with the target itself under a flipped label, which is the most that any poison could do. The trials of
the poisoning benchmark can stand in place of targets and bases (`setups`); their poisons replace their bases.

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

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from jobs.common.data.images.base import ImageSet
from jobs.common.models.network_params import TrainedNetwork
from jobs.poison_frogs import estimation, figures, tables
from jobs.poison_frogs.networks import networks_of
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.crafting import Crafting, Subject
from jobs.poison_frogs.poisons.search import crafts_of, features_of
from jobs.poison_frogs.targets.benchmark import check_crafts, check_setup, targets_of
from jobs.poison_frogs.targets.selection import Scene, Target, class_index, nearest, select
from jobs.poison_frogs.targets.setups import Setup
from jobs.poison_frogs.victims.heads import Head, HeadParams
from jobs.poison_frogs.victims.networks import ScratchParams, VictimParams
from jobs.poison_frogs.victims.retraining import Group, Retraining, controls, head_name
from jobs.poison_frogs.victims.verdicts import rates, verdicts_of
from service.errors import InputError, RunFailedError
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Find the network, select targets and bases, craft the poisons, retrain the victims, and judge them."""
    learnt, test = params.data.load("train"), params.data.load("test")
    setups = () if params.setups is None else params.setups.load()
    for setup in setups:
        check_setup(setup, learnt.labels.numpy(), test.labels.numpy())
    task = tuple(sorted(class_index(test.classes, name) for name in params.task or test.classes))
    network, *surrogates = networks_of(params, learnt, run)
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
        size=0 if params.setups is None else params.setups.images,
    )
    groups = _groups(params, setups, test)
    unpoisoned = controls(shared, groups, params.repeats, run)
    heads = {
        head_name(name, repeat, group): Head(**result["head"])
        for (name, defence, repeat, group), result in unpoisoned.items()
        if isinstance(victims[name], HeadParams) and not defence
    }
    first = next(iter(victims))
    if setups:
        params = params.model_copy(update={"poisons": (len(setups[0].base_indices),)})
        probabilities = [unpoisoned[first, "", 0, group]["probabilities"][0] for group in range(len(groups))]
        targets = targets_of(setups, probabilities, test_features, features)
    else:
        if (name := head_name(first, 0, 0)) in heads:  # whether a target is easy is then for the head to say
            logits = torch.full((len(test), len(test.classes)), -torch.inf)
            logits[:, list(task)] = heads[name](test_features)
        targets = _targets(
            params, Scene(test.classes, test.labels, test_features, logits, torch.empty(0)), features, run
        )

    crafting = Crafting(on_test, params.attack, tuple(surrogates), params.grey_box, learnt if setups else None)
    crafts = crafts_of(crafting, targets, params.poisons, params.batch, params.retry, run)
    if not crafts.made:
        raise RunFailedError("no poison could be crafted")
    if params.setups is not None:
        check_crafts(setups, crafts, learnt, params.setups.levels)
    shared = replace(shared, poison_features=torch.stack([each.features for each in crafts.made.values()]), clean=heads)
    if any(not isinstance(each, HeadParams) for each in victims.values()):
        shared = replace(shared, poisons=torch.stack([each.image for each in crafts.made.values()]))
    outcomes = verdicts_of(shared, groups, targets, crafts, params.poisons, unpoisoned, run)

    tables.log(params, targets, crafts, rates(outcomes), run)
    tables.keep(params, targets, crafts, outcomes, shared, run)
    figures.draw(targets, crafts, params.poisons[-1], outcomes, shared, params.show, run)
    if params.export:
        tables.export(params, targets, crafts, test, run)


def estimate(params: Params) -> Estimate:
    """What a trial would compute and how long it would take, for `assay check`."""
    network = params.network
    try:
        setups = () if params.setups is None else params.setups.load()
    except InputError as error:
        return Estimate(details={"crafts": f"unknown: {error.message}"})
    told = estimation.estimate(
        params.data,
        network.classifier if isinstance(network, TrainedNetwork) else network,
        params.task,
        [(pair.target, pair.targets or params.targets.count) for pair in params.pairs],
        setups,
        0 if params.setups is None else params.setups.images,
        params.poisons,
        params.attack,
        1 if params.retry is None else params.retry.tries,
        params.batch,
        params.victims,
        (1 + len(params.defences)) * params.repeats,
        network.training.epochs * (1 + params.surrogates) if isinstance(network, TrainedNetwork) else 0,
    )
    return Estimate(details=told)


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


def _complete(params: Params) -> dict[str, VictimParams]:
    """The victims; a fresh network of no architecture of its own is of the attacked one."""
    own = params.network.classifier if isinstance(params.network, TrainedNetwork) else None
    return {
        name: victim.model_copy(update={"classifier": victim.classifier or own})
        if isinstance(victim, ScratchParams)
        else victim
        for name, victim in params.victims.items()
    }


def _groups(params: Params, setups: Sequence[Setup], test: ImageSet) -> list[Group]:
    """Whose control is the same: all targets of all pairs; of a benchmark each target has its own."""
    if setups:
        return [
            Group([each.target_index], {"bases": list(each.base_indices), "base_class": each.base_class})
            for each in setups
        ]
    attacked = _of_classes(test, [class_index(test.classes, pair.target) for pair in params.pairs])
    return [Group(attacked.tolist(), {})]


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
