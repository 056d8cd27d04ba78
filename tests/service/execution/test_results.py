"""What comes out of the trials of a run when a number is not finite: nothing is lost, and it is never the best."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from service import models, spec
from service.cli.commands import main
from service.cluster.schedulers import AshaByVariant
from service.execution import history, runner
from service.execution.records import TrialRecord
from service.execution.results import best_of_variants
from service.execution.runner import Execution
from service.execution.trials.early_stopping import BelowBound
from service.planning import plan
from service.spec import Asha, Threshold
from service.store import open_store


def numbers(store: str, **fields: Any) -> spec.JobSpec:
    return spec.build({"job": "tests.service.numbers", "store": store, **fields})


@pytest.mark.parametrize("how", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_metric_that_is_not_finite_is_kept(
    store_uri: str, how: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    if how == "ray":
        request.getfixturevalue("ray_session")
    job_spec = numbers(store_uri, sweep={"grid": {"params.score": ["nan", "0.5", "-inf"]}, "metric": "score"})
    state = runner.start(job_spec, Execution(serial=how == "serial"), "odd")
    store = open_store(store_uri)
    folder = store / "runs" / "odd"
    assert (state.status, state.best) == ("finished", {"": "001-score-0.5"}), state.failure
    assert history.load(folder) == state
    assert repr([each.metrics["score"] for each in history.trials(folder)]) == "[nan, 0.5, -inf]"
    rows = folder.read_table("metrics.parquet").to_pylist()
    assert repr([row["score"] for row in rows if row["step"] == 1]) == "[nan, 0.5, -inf]"
    page = folder.read("report.html").decode()
    assert "<td>nan</td>" in page and "<td>-inf</td>" in page
    assert models.find(store, "number").metrics == {"score": 0.5}
    assert runner.resume(store, "odd", Execution(serial=True)).status == "finished"

    capsys.readouterr()
    assert main(["show", "odd", "--store", store_uri, "--json"]) == 0
    ended = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["ended_trials"]
    assert [each["metrics"]["score"] for each in ended] == ["NaN", 0.5, "-Infinity"]


def test_a_metric_that_no_trial_logs_is_told(store_uri: str) -> None:
    rule = {"kind": "threshold", "metric": "scores", "at_step": 1, "at_least": 0.0}
    sweep = {"grid": {"params.score": ["0.5", "0.7"]}, "metric": "scor", "scheduler": rule}
    state = runner.start(numbers(store_uri, sweep=sweep), Execution(serial=True))
    assert state.warnings == (
        "sweep.metric: no trial logged 'scor', so the first trial of each variant counts as its best; "
        "did you mean 'score'?",
        "sweep.scheduler.metric: no trial logged 'scores', so it stopped none; did you mean 'score'?",
    )
    left = {path.name for path in Path(store_uri, "runs", state.id).iterdir()}
    assert "run.json" in left and "remarks.json" not in left


def test_the_card_of_a_model_without_a_finite_metric_is_kept(store_uri: str) -> None:
    runner.start(numbers(store_uri, params={"score": "nan"}), Execution(serial=True))
    card = models.find(open_store(store_uri), "number")
    assert math.isnan(card.metrics["score"]) and math.isnan(card.settings["threshold"])
    assert card.settings["classes"] == ["NaN"]
    written = json.loads(open_store(store_uri).read("models/number/1/card.json"), parse_constant=pytest.fail)
    assert written["metrics"] == {"score": "NaN"}


def test_a_model_whose_weights_are_not_finite_costs_a_warning(store_uri: str) -> None:
    job_spec = numbers(store_uri, sweep={"grid": {"params.weight": ["inf", "2"]}})
    state = runner.start(job_spec, Execution(serial=True))
    assert (state.status, state.models) == ("finished", ("number/1",)), state.failure
    (warning,) = state.warnings
    assert warning.startswith("model 'number': the weights 'weight' are not finite: the model of trial 'weight=inf'")


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_is_finite_in_whichever_place_it_comes(mode: str) -> None:
    for scores in itertools.permutations([0.5, 2.0, math.nan, math.inf, -math.inf]):
        sweep = {"grid": {"params.score": list(map(str, scores))}, "metric": "score", "mode": mode}
        job_spec = numbers("unused", sweep=sweep)
        plans = plan.trials(job_spec)
        ends = {
            each.id: TrialRecord(id=each.id, label="", status="finished", seconds=0, metrics={"score": score})
            for each, score in zip(plans, scores, strict=True)
        }
        (best,) = best_of_variants(job_spec, plans, ends).values()
        assert ends[best].metrics["score"] == (2.0 if mode == "max" else 0.5)


@pytest.mark.parametrize("bound", [{"at_least": 0.0}, {"at_most": 0.0}])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_threshold_is_not_reached_by_a_metric_that_is_not_finite(bound: dict[str, float], odd: float) -> None:
    (only,) = plan.trials(numbers("unused"))
    rule = Threshold(kind="threshold", metric="score", at_step=1, **bound)
    assert BelowBound(rule).stops(only, {"step": 1, "score": odd})
    assert not BelowBound(rule).stops(only, {"step": 1, "score": 0.0})


@pytest.mark.parametrize(("mode", "good", "bad"), [("max", 1.0, 0.0), ("min", 0.0, 1.0)])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_asha_takes_a_metric_that_is_not_finite_for_the_worst(mode: str, good: float, bad: float, odd: float) -> None:
    job_spec = numbers("unused", sweep={"grid": {"seed": list(range(4))}, "metric": "score", "mode": mode})
    plans = plan.trials(job_spec)
    rule = Asha(kind="asha", grace_steps=1, max_steps=4, reduction=2)
    asha = AshaByVariant(rule, "score", mode, plans)
    for each in plans:
        asha.begin(each)
    rows = [{"step": 1, "score": score} for score in (odd, good, odd, bad)]
    assert [asha.stops(each, row) for each, row in zip(plans, rows, strict=True)] == [False, False, True, False]


def out_of_order(text: str) -> float:
    if text == "0.7":
        raise RuntimeError("out of order")
    return float(text)


def test_what_is_best_after_a_resume_is_published(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(store_uri)
    job_spec = numbers(store_uri, sweep={"grid": {"params.score": ["0.5", "0.7"]}, "metric": "score"})
    with monkeypatch.context() as broken:
        broken.setattr("tests.service.numbers.float", out_of_order, raising=False)
        assert runner.start(job_spec, Execution(serial=True), "one").models == ("number/1",)
    for _ in range(2):
        state = runner.resume(store, "one", Execution(serial=True))
        assert (state.status, state.best, state.models) == ("finished", {"": "001-score-0.7"}, ("number/2",))
    assert [card.metrics["score"] for card in models.list_models(store)] == [0.5, 0.7]


def test_a_driver_that_dies_between_two_models_publishes_the_other_when_it_goes_on(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, publish = open_store(store_uri), models.publish
    job_spec = numbers(store_uri, sweep={"grid": {"params.score": ["0.5", "nan"]}})
    with monkeypatch.context() as dying:
        left = iter([publish])
        dying.setattr(models, "publish", lambda *what, **of: next(left)(*what, **of))
        assert runner.start(job_spec, Execution(serial=True), "one").status == "failed"
    for _ in range(2):
        assert runner.resume(store, "one", Execution(serial=True)).models == ("number/1", "number/2")
    assert len(models.list_models(store)) == 2


def test_another_run_of_the_same_id_publishes_its_own(store_uri: str) -> None:
    store = open_store(store_uri)
    runner.start(numbers(store_uri), Execution(serial=True), "one")
    (store / "runs" / "one").delete()
    state = runner.start(numbers(store_uri, params={"weight": "2"}), Execution(serial=True), "one")
    assert state.models == ("number/2",)
