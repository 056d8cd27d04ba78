"""Adversarial training for free: as robust as training on PGD images, for about the price of natural training.

A weight update of K-step PGD training costs K + 1 forward and backward passes. Free-m takes one: the same backward pass
moves the weights down the loss and the perturbation of the images up. Each minibatch is shown m times in a row, so that
the perturbation has time to grow, and the perturbation goes on to the next minibatch.

Metrics, for `sweep.metric` and schedulers (accuracies are shares of images in [0, 1]):
    train_loss, train_accuracy      at every report: on the points that the weights learn from, since the last report
    val_clean, val_robust           at every report: on training images held out, clean and under PGD
    gradient_evaluations            at every report: forward and backward passes of a batch, so far
    train_seconds                   at every report: time of training so far, without validation
    collapsed_at                    if catastrophic overfitting stopped training: the update at which it was seen
    clean, robust                   at the end, on test images: robust to all attacks
    robust_NAME                     at the end, for each attack of the evaluation, at the epsilon of training

Specs to begin with: configs/free_training/.

Source: Shafahi et al. 2019, "Adversarial Training for Free!". What it is compared with: natural training, K-PGD (Madry
et al. 2018), FGSM-RS (Wong et al. 2020), TRADES (Zhang et al. 2019).
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from jobs.common.attacks import Ball
from jobs.common.attacks.checks import check_ball
from jobs.common.data.images.base import ImageSet
from jobs.common.data.training_data import TrainingImages
from jobs.common.models.cards import classifier_card
from jobs.common.models.fit import check_fit
from jobs.common.training.adversarial.training import train
from jobs.common.trials import label_without_repeats
from jobs.free_training import estimation, figures
from jobs.free_training.evaluation import evaluate
from jobs.free_training.params import Params
from service.models import CardDraft
from service.run import Estimate, Run, Trial

PLACEMENT = "shared_batches"
COMPARED = ("clean", "robust", "gradient_evaluations", "train_seconds")
"""metrics that methods are compared by; a partial trial may lack one"""


def run(params: Params, run: Run) -> None:
    """Train, then attack."""
    images, test = params.data.load_splits()
    ball = params.threat.ball
    balls = [Ball(ball.norm, epsilon) for epsilon in params.epsilons]
    first = images.images(torch.arange(1))
    check_ball(params.method.kind, ("Linf", "L2"), ball, first)
    for attack in (params.training.validation, *params.evaluation.attacks.values()):
        for within in balls:
            attack.check(within, first, len(images.classes))
    network = params.network.build(images, run.seed_for("weights")).to(run.device)
    check_fit(network, images, params.network.name)
    plan = params.training
    home = plan.engine.home(run.device)
    data = TrainingImages(images, plan.held_out, plan.batch, plan.augmentation, run.seed_for, home)
    run.expect(plan.updates)
    train(network, data, params.method, ball, plan, run)

    evaluation = evaluate(network, test, balls, params.evaluation, partial(run.seed_for, "attack"))
    robust_to = {f"robust_{name}": accuracy for name, accuracy in evaluation.robust_to(ball).items()}
    run.log(step=run.step, clean=evaluation.clean, robust=evaluation.robust(ball), **robust_to)
    title = "Accuracy under each attack at each epsilon, and the work for an image"
    run.table("attacks", evaluation.rows(), title=title)
    for each in evaluation.attacks:
        for sentence in each.verdict.warnings:
            run.warn(f"{each.name} at {each.ball.epsilon:.3g}: {sentence}")
    run.table("classes", evaluation.classes, title="Accuracy on clean test images of each class")
    run.save_model(params.model_name, network, _card(params, images, run.metrics))


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """What every trial reached and what it cost, also against natural and K-PGD training; and both as figures."""
    finished = [trial for trial in trials if trial.has_results]
    if not finished:
        return
    results = [result(trial) for trial in finished]
    run.table("results", results, title="Accuracy on test images, and what training cost")
    if relative := [row for trial in finished for row in against_baselines(trial, finished)]:
        run.table(
            "relative",
            relative,
            title="Against natural and PGD training: differences of accuracy, ratios of gradients and of time",
        )
    labels = _labels(finished)
    costs = [
        figures.Cost(
            labels[trial.id], trial.metrics["gradient_evaluations"], trial.metrics["clean"], trial.metrics["robust"]
        )
        for trial in finished
        if set(COMPARED) <= set(trial.metrics)
    ]
    attacks = {
        ", ".join(name.replace("_", "-").upper() for name in trial.params.evaluation.attacks) for trial in finished
    }
    balls = {f"{trial.params.threat.norm} {trial.params.threat.epsilon:.3g}" for trial in finished}
    run.figure(
        "cost",
        figures.robustness_against_cost(costs, f"{' or '.join(sorted(attacks))}, {', '.join(sorted(balls))}"),
        title="Robust accuracy on test images against gradient evaluations in training",
    )
    run.figure(
        "training",
        figures.accuracy_during_training([_curve(trial, labels[trial.id]) for trial in finished]),
        title="Accuracy during training on images held out, clean and under PGD",
    )


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)


def result(trial: Trial) -> dict[str, Any]:
    """A trial's row in the table of results."""
    params: Params = trial.params
    names = ("clean", "robust", *(f"robust_{name}" for name in params.evaluation.attacks))
    evaluations = trial.metrics.get("gradient_evaluations")
    return {
        "trial": trial.label,
        "method": params.method.label,
        "norm": params.threat.norm,
        "epsilon": params.threat.epsilon,
        **{name: trial.metrics.get(name) for name in names},
        "updates": int(trial.history[-1]["step"]),
        "gradient_evaluations": None if evaluations is None else int(evaluations),
        "train_seconds": trial.metrics.get("train_seconds"),
    }


def against_baselines(trial: Trial, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A trial's rows in the table of comparisons: one for natural and one for each K-PGD training of the sweep.

    A baseline is a trial of the same threat, and of the same seed if there is one.
    """
    rows = []
    trials = [each for each in trials if set(COMPARED) <= set(each.metrics)]
    if trial not in trials:
        return []
    alike = [other for other in trials if other.params.threat == trial.params.threat and other.id != trial.id]
    alike = [other for other in alike if other.seed == trial.seed] or alike
    for other in alike:
        if other.params.method.kind in ("natural", "pgd"):
            rows.append(
                {
                    "trial": trial.label,
                    "against": other.label,
                    "clean": trial.metrics["clean"] - other.metrics["clean"],
                    "robust": trial.metrics["robust"] - other.metrics["robust"],
                    "gradient_evaluations": trial.metrics["gradient_evaluations"]
                    / other.metrics["gradient_evaluations"],
                    "train_seconds": trial.metrics["train_seconds"] / other.metrics["train_seconds"],
                }
            )
    return rows


def _labels(trials: Sequence[Trial]) -> dict[str, str]:
    """A name for each trial in figures: its method, with the ball if the trials differ in that.

    Trials that differ in the seed alone have one name; any others that would, also what sets them apart in the sweep.
    """
    norms = {trial.params.threat.norm for trial in trials}
    epsilons = {trial.params.threat.epsilon for trial in trials}
    names: dict[str, str] = {}
    asked: dict[str, set[str]] = defaultdict(set)  # the parameters of each name
    for trial in trials:
        threat = trial.params.threat
        ball = ([threat.norm] if len(norms) > 1 else []) + ([f"{threat.epsilon:.3g}"] if len(epsilons) > 1 else [])
        names[trial.id] = " ".join([trial.params.method.label, *(["at", *ball] if ball else [])])
        asked[names[trial.id]].add(trial.params.model_dump_json())
    for trial in trials:
        if len(asked[name := names[trial.id]]) > 1:
            names[trial.id] = f"{name}, {label_without_repeats(trial)}"
    return names


def _curve(trial: Trial, label: str) -> figures.Curve:
    rows = [row for row in trial.history if "val_robust" in row]
    updates, clean, robust = ([row[name] for row in rows] for name in ("step", "val_clean", "val_robust"))
    return figures.Curve(label, updates, clean, robust)


def _card(params: Params, images: ImageSet, metrics: dict[str, float]) -> CardDraft:
    method, threat = params.method, params.threat
    trained = f"{threat.norm} {threat.epsilon:.3g}" if method.adversarial else "no perturbation"
    return classifier_card(
        "free_training",
        params.network,
        images,
        metrics=metrics,
        description=f": {method.label} training, {trained}",
        settings={
            "norm": threat.norm,
            "epsilon": threat.epsilon if method.adversarial else 0.0,
            "method": method.model_dump(mode="json"),
        },
    )
