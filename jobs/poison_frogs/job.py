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

from jobs.common.data.classes import images_of, labels_of
from jobs.poison_frogs import estimation, figures, illustrations, results
from jobs.poison_frogs.networks import check_networks, networks_of
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.crafting import Crafting, Subject
from jobs.poison_frogs.poisons.search import crafts_of, features_of
from jobs.poison_frogs.targets.benchmark import check_crafts, load_setups, targets_of
from jobs.poison_frogs.targets.pairs import check_pairs, select_pairs
from jobs.poison_frogs.targets.selection import logits_of
from jobs.poison_frogs.victims.heads import HeadParams
from jobs.poison_frogs.victims.retraining import (
    Group,
    Retraining,
    clean_heads,
    controls,
    groups_of,
    head_name,
    training_labels,
)
from jobs.poison_frogs.victims.verdicts import verdicts_of
from jobs.poison_frogs.warnings import warnings_of
from service.errors import RunFailedError, within
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Find the network, select targets and bases, craft the poisons, retrain the victims, and judge them."""
    train, test = params.data.load_splits()
    setups = load_setups(params.setups, train, test)
    task = labels_of(params.task or test.classes, test)
    rows, test_rows = images_of(train, task), images_of(test, task)
    check_pairs(params, test)
    check_networks(params, train)
    groups = groups_of(setups)
    size = 0 if params.setups is None else params.setups.images
    for labels in training_labels(groups, train, size) if setups else [train.labels[rows]]:
        for name, defence in params.defences.items():
            with within(f"defences.{name}"):
                defence.check(labels)
    network, *surrogates = networks_of(params, train, run)
    on_train, on_test = Subject(network, train, params.layers), Subject(network, test, params.layers)
    features, _ = features_of(on_train, rows, run, "train_features")
    test_features, logits = features_of(on_test, torch.arange(len(test)), run, "test_features")

    retraining = Retraining(
        subject=on_train,
        rows=rows,
        test=test,
        test_rows=test_rows,
        task=task,
        features=features,
        test_features=test_features,
        victims=params.complete_victims,
        defences=params.defences,
        poisons=torch.empty(0, *test.shape),
        poison_features=features[:0],
        clean_heads={},
        size=size,
    )
    if not setups:
        attacked = labels_of([pair.target for pair in params.pairs], test)
        groups = [Group(images_of(test, attacked).tolist(), {})]
    unpoisoned = controls(retraining, groups, params.repeats, run)
    heads = clean_heads(retraining, unpoisoned)
    first = next(iter(params.victims))
    if setups:
        params = params.model_copy(update={"poisons": (len(setups[0].base_indices),)})
        probabilities = [unpoisoned[first, "", 0, group]["probabilities"][0] for group in range(len(groups))]
        targets = targets_of(setups, probabilities, test_features, features)
    else:
        if (name := head_name(first, 0, 0)) in heads:  # then the head decides whether a target is easy
            logits = logits_of(heads[name], test_features, task, len(test.classes))
        targets = select_pairs(params, test, test_features, logits, features, run)

    crafting = Crafting(on_test, params.attack, tuple(surrogates), params.grey_box, train if setups else None)
    crafts = crafts_of(crafting, targets, params.poisons, params.batch, params.retry, run)
    if not crafts.made:
        raise RunFailedError("no poison could be crafted")
    if params.setups is not None:
        check_crafts(setups, crafts, train, params.setups.levels)
    made = crafts.made.values()
    retraining = replace(retraining, poison_features=torch.stack([each.features for each in made]), clean_heads=heads)
    if any(not isinstance(each, HeadParams) for each in params.victims.values()):
        retraining = replace(retraining, poisons=torch.stack([each.image for each in made]))
    outcomes = verdicts_of(retraining, groups, targets, crafts, params.poisons, unpoisoned, run)

    everything = results.Results(targets, crafts, outcomes, retraining)
    results.log(params, everything, run)
    results.keep(everything, run)
    for sentence in warnings_of(params, everything):
        run.warn(sentence)
    illustrations.draw(params, everything, run)
    if params.export:
        results.export(params, everything, test, run)


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """Every trial's rates in one table, and success against the number of poisons in one figure."""
    tables = {trial.label: trial.table("success") for trial in trials if trial.has_results}
    tables = {label: table for label, table in tables.items() if table}
    if len(tables) < 2:
        return
    run.table("success", [{"trial": label, **row} for label, rows in tables.items() for row in rows], title="All rates")
    curves = [
        replace(curve, label=f"{label}: {curve.label}")
        for label, rows in tables.items()
        for curve in figures.curves(rows)
    ]
    if curves:
        run.figure("success", figures.success(curves), title="Success of every trial, with 95 % intervals")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)
