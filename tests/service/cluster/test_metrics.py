"""What Prometheus is told: counted right, scraped from Ray's agent, and what a dashboard shows is there."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from service import spec
from service.cluster import metrics
from service.cluster.metrics import RunMetrics
from service.execution import runner
from service.execution.fan_out.mapping import CellProgress
from service.execution.runner import Execution
from tests.processes import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "configs" / "grafana" / "assay.json"
Samples = dict[tuple[str, str], float]  # metric, the label in question -> sum


def scraped(job: str) -> Samples:
    """What this node's agent says of a job, by metric and its second label."""
    port = ray.nodes()[0]["MetricsExportPort"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("job") == job and "le" not in sample.labels:
                key = sample.name, sample.labels.get("status") or sample.labels.get("outcome") or ""
                found[key] = found.get(key, 0) + sample.value
    return found


def wait_for(job: str, complete: Callable[[Samples], bool]) -> Samples:
    """Processes of Ray tell their agent from time to time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not complete(found := scraped(job)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_a_run_is_counted_where_prometheus_looks(ray_session: None, tmp_path: Path) -> None:
    job = "tests.service.grid"
    job_spec = spec.build(
        {
            "job": job,
            "store": str(tmp_path / "store"),
            "params": {"cells": 30, "folder": str(tmp_path), "fail": [3, 4]},
            "resources": {"cpus": 4},
        }
    )
    before = scraped(job)
    assert runner.start(job_spec, Execution(), "counted").status == "partial"
    (tmp_path / "mended").touch()
    assert runner.resume(runner.open_store(job_spec.store), "counted", Execution()).status == "finished"
    wanted = {
        ("ray_assay_runs_total", "partial"): 1,
        ("ray_assay_runs_total", "finished"): 1,
        ("ray_assay_trials_total", "partial"): 1,
        ("ray_assay_trials_total", "finished"): 1,
        ("ray_assay_trial_seconds_count", ""): 2,
        ("ray_assay_cells_total", "done"): 30,  # those of the first driver are not counted again by the second
        ("ray_assay_cells_total", "failed"): 2,
    }
    found = wait_for(job, lambda found: all(found.get(key, 0) - before.get(key, 0) >= wanted[key] for key in wanted))
    assert {key: found[key] - before.get(key, 0) for key in wanted} == wanted
    assert found["ray_assay_run_seconds_total", ""] > before.get(("ray_assay_run_seconds_total", ""), 0)
    assert found.get(("ray_assay_trials_running", ""), 0) == 0


class Counted:
    """Stands for a counter of Ray."""

    def __init__(self, *described: Any) -> None:
        self.total: dict[str, float] = {}

    def inc(self, value: float = 1, tags: dict[str, str] | None = None) -> None:
        assert value > 0 and tags is not None
        self.total[tags["outcome"]] = self.total.get(tags["outcome"], 0) + value


def test_cells_are_counted_by_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counted()
    monkeypatch.setattr(metrics, "Counter", lambda *described: counter)
    of_run = RunMetrics("job")
    for trial, name, computed, failed in [
        ("a", "grid", 0, 0), ("a", "grid", 5, 0), ("a", "grid", 5, 1), ("b", "grid", 7, 0),
        ("a", "grid", 0, 0), ("a", "grid", 4, 0), ("a", "other", 2, 2), ("a", "grid", 4, 0),
    ]:  # fmt: skip
        of_run.cells(trial, CellProgress(name, 100, 200, failed, 1.0, None, computed))
    assert counter.total == {"done": 5 + 7 + 4 + 2, "failed": 1 + 2}


# ---- the dashboard ---------------------------------------------------------------------------------------------------


def exported() -> set[str]:
    """The names under which Prometheus finds what the sources declare."""
    names: set[str] = set()
    for path in (*(ROOT / "service").rglob("*.py"), *(ROOT / "serving").rglob("*.py")):
        for kind, name in re.findall(r'\b(Counter|Gauge|Histogram)\(\s*"(\w+)"', path.read_text()):
            endings = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}[kind]
            names |= {f"ray_{name}{ending}" for ending in endings}
    return names


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "assay" and dashboard["title"] == "Assay" and dashboard["schemaVersion"] >= 39
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    known, asked = exported(), set()
    for panel in panels:
        assert panel["title"] and panel["targets"] and panel["datasource"]["type"] == "prometheus"
        for target in panel["targets"]:
            names = set(re.findall(r"\bray_\w+", target["expr"]))
            assert names and names <= known, f"{panel['title']}: {names - known or target['expr']}"
            assert target["expr"].count("(") == target["expr"].count(")")
            asked |= names
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    lacking = {re.sub("_(bucket|sum|count)$", "", name) for name in known} - shown
    assert not lacking, "no panel shows them"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
