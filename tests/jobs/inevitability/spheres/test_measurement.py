"""Networks for concentric spheres: what is measured lies below what is possible, and an alarm is raised where not."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jobs.inevitability.bounds.adversarial_spheres import mean_distance_ceiling
from jobs.inevitability.spheres import measurement
from jobs.inevitability.spheres.drawing import spheres
from jobs.inevitability.spheres.measurement import Robustness
from jobs.inevitability.spheres.networks import NewPoints, build
from jobs.inevitability.spheres.sphere_params import SpheresParams
from service.run import Run
from service.store import open_store

SMALL = SpheresParams(dimensions=(60,), width=60, updates=150, batch=64, samples=20_000, attacked=50, steps=40)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Robustness]:
    root = open_store(str(tmp_path_factory.mktemp("spheres")))
    return measurement.measured(SMALL, Run(root / "trial", 0, store=root / "store"))


def test_networks_are_below_the_ceiling(results: list[Robustness]) -> None:
    assert [(each.sphere, each.radius) for each in results] == [("inner", 1.0), ("outer", 1.3)]
    for each in results:
        row = each.row()
        assert 0.001 < row["error"] < 0.4 and row["low"] < row["error"] < row["high"] and not row["unreached"]
        assert row["ceiling"] == pytest.approx(mean_distance_ceiling(row["error"], 60, row["radius"]), rel=1e-12)
        assert 0.3 < row["share_of_ceiling"] < 1 and row["mean_distance"] < row["highest_ceiling"]
    assert measurement.alarms(results) == []


def test_the_same_cell_gives_the_same_result() -> None:
    shorter = SMALL.model_copy(update={"updates": 5, "samples": 500})
    cell = {"dimension": 60, "seed": 0, "stream": 11, "spheres": shorter.model_dump_json()}
    first, again = (measurement.measure(cell, None) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one["errors"] == other["errors"] and torch.equal(one["angles"], other["angles"])


def test_alarm_where_the_search_is_too_weak(results: list[Robustness]) -> None:
    weak = replace(results[0], angles=np.full(50, np.inf))
    (sentence,) = measurement.alarms([weak])
    assert sentence.startswith("of the inner sphere in 60 dimensions 100.0% have no error within an angle of")
    assert sentence.endswith("the search for errors is too short")
    # a class without errors may be as robust as it likes
    assert measurement.alarms([replace(weak, errors=0)]) == []


def test_points_that_no_error_was_found_for(results: list[Robustness]) -> None:
    none = Robustness(60, 1, "outer", 1.3, 0, 1000, np.array([0.1, math.inf]))
    row = none.row()
    assert row["unreached"] == 1 and row["error"] == 0
    assert math.isnan(row["mean_distance"]) and math.isnan(row["ceiling"]) and math.isnan(row["share_of_ceiling"])
    rows = [each.row() for each in (*results, none)]
    assert spheres(rows, [row for each in (*results, none) for row in each.curve_rows()]).axes
    assert spheres([row], none.curve_rows()).axes


def test_curves() -> None:
    each = Robustness(100, 0, "inner", 1.0, 10, 1000, np.array([0.0, 0.3, math.inf]))
    assert each.curve[0] == pytest.approx(2 / 3) and each.curve[-1] == pytest.approx(1 / 3)
    ceiling = each.ceiling(each.share)
    assert ceiling[0] == pytest.approx(0.99) and (np.diff(ceiling) <= 0).all()
    assert (each.ceiling(0.0) == 1).all() and len(each.curve_rows()) == len(measurement.ANGLES)


def test_points_to_learn_from() -> None:
    drawn, labels = NewPoints(SMALL, 60, 3).batch(0)
    assert drawn.shape == (64, 60) and labels.tolist() == [0] * 32 + [1] * 32
    assert torch.allclose(drawn.norm(dim=1), torch.where(labels == 0, 1.0, 1.3), atol=1e-5)
    first = build(60, SMALL.width, SMALL.layers, 3)
    assert len(first) == 5 and first[0].weight.shape == (60, 60) and first[4].weight.shape == (2, 60)
    assert torch.equal(first[0].weight, build(60, SMALL.width, SMALL.layers, 3)[0].weight)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"dimensions": (1,)}, "greater than or equal to 2"),
        ({"dimensions": (5, 5)}, "dimensions\n.*must name each once"),
        ({"seeds": (1, 1)}, "seeds\n.*must name each once"),
        ({"radius": 1.0}, "greater than 1"),
        ({"batch": 33}, "batch must be even, half of it of each sphere; it is 33"),
    ],
)
def test_bad_fields(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        SpheresParams.model_validate(fields)
