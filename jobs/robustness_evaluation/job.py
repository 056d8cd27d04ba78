"""Robustness evaluation: how much of its accuracy a trained classifier keeps under attack.

The images are cut into slices. Each attack at each epsilon on each slice is one cell, computed on any worker; attacks
do not know where others succeeded, so each has a curve of its own; in the worst case an image is robust to all of them.
An attack for the smallest perturbation is run once, at the largest epsilon, and gives the outcomes at the others.

Metrics, for `sweep.metric` (shares of the images in [0, 1]); one row for each epsilon, ascending, so that the values
logged last are those of the largest:
    epsilon           the radius of the ball
    clean             accuracy on the clean images
    robust            accuracy that is left after all attacks
    robust_NAME       accuracy that is left after one of them

Specs to begin with: configs/robustness_evaluation/.

An attack for the least norm and attacks within epsilon check each other: a warning says where they are more than 2
points apart. Where there are several attacks, a table says how near each security curve is to the best known one, and
for how much work.

Sources: Croce & Hein 2020 (the attacks of AutoAttack, worst case over them); Biggio & Roli 2018 (security curves);
Cinà et al. 2025 (AttackBench: optimality of a curve);
Carlini et al. 2019, "On Evaluating Adversarial Robustness" (what to check and to report).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from jobs.common.data.images.base import ImageSet
from jobs.common.data.images.relabelled import with_classes
from jobs.common.robustness import slices
from jobs.common.robustness.outcomes import outcomes_at, worst_case
from jobs.robustness_evaluation import estimation, figures, tables
from jobs.robustness_evaluation.params import Params
from service.errors import RunFailedError
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Predict the clean images, attack them, and say what is left."""
    model = params.network.load(run)
    model.check_task("classification")
    images = params.images()
    model.compare_shape(images, run)
    if model.classes is not None:
        images = with_classes(images, model.classes, images.name, f"model {model.name!r}")
    subject = slices.Subject(model.name, model.network, images, params.norm)
    slices.check(subject, list(params.attacks.values()), params.epsilons)
    spans = slices.spans(len(images), params.slice)

    clean = run.map(slices.predict, spans, subject, name="clean")
    if any(each is None for each in clean):
        raise RunFailedError("some predictions on the clean images failed, without which no attack can be judged")
    predictions = torch.cat(clean)
    correct = predictions == images.labels

    searches = params.searches
    cells = [_cell(params, run, name, epsilon, span) for name, epsilon in searches for span in spans]
    attacked_slices = run.map(slices.attack, cells, subject, name="attacks")
    results = {search: attacked_slices[place * len(spans) :][: len(spans)] for place, search in enumerate(searches)}
    outcomes = outcomes_at(params.attacks, params.norm, params.epsilons, correct, spans, results)
    for step, (epsilon, attacked) in enumerate(outcomes.items()):
        robust = {f"robust_{each.name}": each.accuracy for each in attacked}
        robust["robust"] = float(worst_case(attacked).double().mean())
        run.log(step=step, epsilon=epsilon, clean=float(correct.double().mean()), **robust)

    rows = tables.accuracies(correct, outcomes)
    run.table("accuracy", [{"model": model.name, **row} for row in rows], title="What is left under attack")
    for sentence in tables.warnings(outcomes):
        run.warn(sentence)
    run.figure(
        "security_curves",
        figures.security_curves(
            [_curve(name, name, rows) for name in (*params.attacks, tables.WORST_CASE)], params.norm
        ),
        title=f"{model.name} on {len(images)} images of {images.name}; bands: 95 % intervals",
    )
    largest = params.epsilons[-1]
    if examples := _examples(images, {name: results[name, largest][0] for name in params.attacks}, params.show):
        title = f"Images and adversarial images, {params.norm} {largest:.3g}"
        run.figure("adversarials", figures.adversarial_images(examples), title=title)
    searching = [name for name, attack in params.attacks.items() if attack.finds_least]
    if least := tables.distances(correct, outcomes, searching):
        run.table("distances", least, title="The least perturbations found, of images classified correctly")
    if scores := tables.optimality(correct, outcomes):
        title = "How near each security curve is to the best known one (1), and passes for an image in all"
        run.table("optimality", scores, title=title)
    run.table("images", tables.images(images, predictions, outcomes), title="What became of each image")


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """The worst case of every trial in one figure, and the numbers of all in one table."""
    numbers = {trial.label: rows for trial in trials if trial.has_results and (rows := trial.table("accuracy"))}
    if len(numbers) < 2:
        return
    title = f"{tables.WORST_CASE} over the attacks"
    norm = " or ".join(sorted({trial.params.norm for trial in trials}))
    curves = [_curve(label, tables.WORST_CASE, rows) for label, rows in numbers.items()]
    run.figure("security_curves", figures.security_curves(curves, norm, title), title="Robust accuracy of every trial")
    rows = [{"trial": label, **row} for label, own in numbers.items() for row in own]
    run.table("accuracy", rows, title="What is left of every trial under attack")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)


def _cell(params: Params, run: Run, name: str, epsilon: float, span: slices.Span) -> dict[str, Any]:
    """What `slices.attack` is to do. The seed does not depend on epsilon: a curve compares like with like."""
    first, end = span
    shown = first == 0 and epsilon == params.epsilons[-1]
    return {
        "span": [first, end],
        "attack": params.attacks[name].model_dump(mode="json"),
        "epsilon": epsilon,
        "seed": run.seed_for("attack", name, first),
        "show": params.show if shown else 0,
    }


def _curve(label: str, attack: str, rows: Sequence[dict[str, Any]]) -> figures.Curve:
    """The security curve of an attack, from the rows of the table; it begins with the clean images."""
    own = [row for row in rows if row["attack"] in (tables.CLEAN, attack)]
    epsilons, accuracy, low, high = ([row[name] for row in own] for name in ("epsilon", "accuracy", "low", "high"))
    return figures.Curve(label, epsilons, accuracy, low, high, bold=label == tables.WORST_CASE)


def _examples(images: ImageSet, results: Mapping[str, dict[str, Any] | None], most: int) -> list[figures.Example]:
    """The first images on which an attack succeeded, each as the first such attack left it.

    results: of the first slice, by the name of the attack; None for a cell that failed.
    """
    examples: dict[int, figures.Example] = {}
    names = dict(enumerate(images.classes))  # the model may have classes that the data do not
    for name, result in results.items():
        for row, adversarial, prediction in zip(*result["shown"], strict=True) if result else ():
            label, predicted = (names.get(int(each), str(int(each))) for each in (images.labels[row], prediction))
            clean = images.images(row.view(1))[0]
            examples.setdefault(int(row), figures.Example(clean, adversarial, label, predicted, name))
    return [examples[row] for row in sorted(examples)[:most]]
