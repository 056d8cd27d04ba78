"""Deep thinking: networks that solve harder problems than they were trained on by thinking longer.

A recurrent network learns a task on small instances within a few iterations. Afterwards it is given larger instances
and more iterations: with recall of the inputs and the progressive loss its answers get better and stay; without them
they collapse when it thinks on ("overthinking").

Metrics, for `sweep.metric` and schedulers (accuracies are shares of instances with every position right):
    train_loss, train_accuracy, val_loss, val_accuracy    at every report; val: other instances of the training size
    val_stability                                         at the end: mean accuracy from m to 4m iterations on these
    at_trained_S, peak_S, last_S                          at the end, for each size S that is tested: accuracy after m
                                                          iterations, at the best iteration and at the last

Specs to begin with: configs/quickstart.yaml and configs/deep_thinking/.

Sources: Schwarzschild et al. 2021, "Can You Learn an Algorithm?"; Bansal et al. 2022, "End-to-end Algorithm Synthesis
with Recurrent Networks: Logical Extrapolation Without Overthinking".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.common.models.architectures import weights_from
from jobs.common.models.weights_file import load_weights
from jobs.deep_thinking import estimation, figures
from jobs.deep_thinking.evaluation import (
    LOOK_AHEAD,
    Difficulty,
    Evaluation,
    answers_of_one,
    evaluate,
    first_solved,
)
from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.params import Params, check_fit
from jobs.deep_thinking.problems.base import Problem
from jobs.deep_thinking.problems.cache import cached_sample
from jobs.deep_thinking.training import train
from service.models import CardDraft, TensorSpec
from service.run import Estimate, Run, Trial


def run(params: Params, run: Run) -> None:
    """Train, then test on larger instances with more iterations."""
    solved = params.problem.build()
    with weights_from(run.seed_for("weights")):
        net = params.build_network(solved).to(run.device)
    if params.network.weights is not None:
        load_weights(net, Path(params.network.weights).expanduser())
    check_fit(net, solved, params.training.size, params.network.name)
    data = train(net, solved, params.training, run)

    m = params.training.iterations
    validated = evaluate(net, solved, data.validation, params.training.size, LOOK_AHEAD * m, m, params.evaluation)
    run.log(step=data.updates, val_stability=validated.stability)

    evaluations = []
    for test in params.evaluation.sizes:
        instances = cached_sample(solved, test.size, test.instances, run.seed_for("test", test.size), run.cache)
        evaluations.append(evaluate(net, solved, instances, test.size, test.iterations, m, params.evaluation))
        tested = evaluations[-1]
        named = {"at_trained": tested.at_trained, "peak": tested.peak, "last": tested.last}
        run.log(step=data.updates, **{f"{name}_{test.size}": value for name, value in named.items()})
    run.table("results", [each.summary() for each in evaluations], title="Accuracy on every size")
    run.table("accuracy", _curves(evaluations), title="Accuracy after every iteration")
    if params.evaluation.show is not None:
        show_solving(net, solved, params.evaluation.show, run)
    run.save_model(params.model_name, net, _card(params, solved, run.metrics))


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """Accuracy against iterations for every difficulty, one panel a variant; and every trial's numbers in one table."""
    finished = [trial for trial in trials if trial.has_results]
    if not finished:
        return
    panels: dict[str, figures.Panel] = {}
    rows: list[dict[str, Any]] = []
    for trial in finished:
        params: Params = trial.params
        best = trial.best or len(finished) == 1
        title = (trial.variant or params.model_name).replace("_", " ")
        panel = panels.setdefault(title, figures.Panel(title, params.training.iterations, []))
        panel.lines.extend(_lines(trial.table("accuracy"), best))
        validation = {name: trial.metrics.get(name) for name in ("val_accuracy", "val_stability")}
        rows += [{"trial": trial.label, "best": best, **validation, **row} for row in trial.table("results")]
    run.figure(
        "accuracy",
        figures.accuracy_against_iterations(list(panels.values()), params.training.size, params.problem.build().sizes),
        title="Accuracy against iterations; bold: the trial that did best in validation at the training size",
    )
    run.table("results", rows, title="Every trial on every size")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)


def show_solving(net: Thinker, solved: Problem, test: Difficulty, run: Run) -> None:
    """Draw an instance being solved, or failed at if all are: a strip of a few iterations, and an animation."""
    inputs, _ = solved.sample(test.size, test.instances, run.seed_for("show", test.size))
    chosen = first_solved(net, solved, inputs, test.iterations)
    inputs = inputs[chosen or 0].unsqueeze(0)
    verdict = "not solved, nor is any other" if chosen is None else "solved"
    answers = answers_of_one(net, solved, inputs, test.iterations)
    drawn = {iteration: solved.picture(inputs[0], answer) for iteration, answer in answers.items()}
    chosen_iterations = figures.spread(list(drawn), 6)
    run.figure(
        "solving",
        figures.strip([drawn[each] for each in chosen_iterations], [f"iteration {each}" for each in chosen_iterations]),
        title=f"One instance of size {test.size}, thought by thought: {verdict}",
    )
    frames = [figures.frame(solved.picture(inputs[0], None), "before thinking")]
    frames += [figures.frame(drawn[each], f"iteration {each}") for each in figures.spread(list(drawn), 80)]
    run.animation("solving", [*frames, *frames[-1:] * 10], 0.15, title=f"An instance of size {test.size}: {verdict}")


def _curves(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    return [
        {"size": each.size, "iteration": index + 1, "accuracy": float(now), "accuracy_by_confidence": float(confident)}
        for each in evaluations
        for index, (now, confident) in enumerate(zip(each.accuracy, each.accuracy_by_confidence, strict=True))
    ]


def _lines(rows: Sequence[dict[str, Any]], best: bool) -> list[figures.Line]:
    """The curves in a trial's table, one for each size."""
    by_size: dict[int, list[float]] = {}
    for row in rows:
        by_size.setdefault(row["size"], []).append(row["accuracy"])
    return [figures.Line(size, accuracy, best) for size, accuracy in by_size.items()]


def _card(params: Params, solved: Problem, metrics: dict[str, float]) -> CardDraft:
    space = (-1,) * solved.dimensions
    return CardDraft(
        architecture=params.network.architecture,
        arguments=params.network.arguments(solved.channels, params.training.iterations),
        study="deep_thinking",
        task="thinking",
        inputs=(TensorSpec(name="input", datatype="FP32", shape=(-1, solved.channels, *space)),),
        outputs=(TensorSpec(name="prediction", datatype="INT64", shape=(-1, *space)),),
        settings={
            "problem": params.problem.model_dump(mode="json"),
            "trained_iterations": params.training.iterations,
            "trained_size": params.training.size,
        },
        metrics=metrics,
        description=f"{params.model_name}: trained on {params.training.size} {solved.sizes} "
        f"with at most {params.training.iterations} iterations",
    )
