"""The summary of several trials: partial ones take part, failed ones do not."""

import pytest

from jobs.robustness_evaluation.job import run, summarize
from service.execution.records import TrialStatus
from service.run import Trial
from tests.jobs.robustness_evaluation.small import params


@pytest.mark.parametrize(("status", "labels"), [("partial", {"a", "b", "c"}), ("failed", {"a", "b"})])
def test_partial_trials_take_part(make_run, status: TrialStatus, labels: set[str]) -> None:
    trials = []
    for label, state in (("a", "finished"), ("b", "finished"), ("c", status)):
        handle, asked = make_run(name=label), params(first=20)
        run(asked, handle)
        described = {"id": label, "label": label, "variant": None, "seed": 0, "overrides": {}, "best": False}
        trials.append(Trial(handle.folder, params=asked, status=state, metrics=handle.metrics, **described))
    summary = make_run(name="summary")
    summarize(trials, summary)
    rows = summary.folder.read_table("tables/accuracy.parquet").to_pylist()
    assert {row["trial"] for row in rows} == labels
    assert summary.folder.exists("figures/security_curves.png")
