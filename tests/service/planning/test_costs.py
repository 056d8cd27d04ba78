"""What trials cost: those alike told of once, and the time that all of them take."""

from typing import Any

import pytest

from service import spec
from service.planning import plan
from service.planning.costs import Cost, costs, seconds_on
from service.run import Estimate
from service.spec import Resources
from tests.service import walk


def cost(count: int, seconds: float | None, pieces: int = 1, **resources: Any) -> Cost:
    labels = tuple(f"trial {index}" for index in range(count))
    return Cost(labels, Estimate(core_seconds=seconds, pieces=pieces), Resources(**resources))


def test_trials_that_differ_in_the_seed_alone_are_estimated_once() -> None:
    sweep = {"grid": {"seed": [1, 2, 3], "params.pace.steps": [10, 20]}}
    few, many = costs(plan.trials(spec.build({"job": "tests.service.walk", "sweep": sweep})))
    assert len(few.labels) == len(many.labels) == 3
    assert (few.estimate.core_seconds, many.estimate.core_seconds) == (10.0, 20.0)
    assert few.core_seconds == 30.0
    assert costs(plan.trials(spec.build({"job": "tests.service.grid"}))) == [], "a job that says nothing"


def test_trials_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine thousand took two minutes."""
    sweep = {"grid": {"params.pace.steps": list(range(1, 21))}}
    plans = plan.trials(spec.build({"job": "tests.service.walk", "sweep": sweep}))
    compared: list[object] = []
    monkeypatch.setattr(walk.Params, "__eq__", lambda one, other: compared.append(one) or one is other)
    assert len(costs(plans)) == 20
    assert len(compared) <= 20


@pytest.mark.parametrize(
    ("trials", "cores", "seconds"),
    [
        ([cost(4, 10.0)], 2, 20.0),
        ([cost(1, 10.0)], 4, 10.0),  # one trial is not split
        ([cost(1, 10.0, pieces=100)], 4, 2.5),  # unless it falls into parts
        ([cost(1, 10.0, pieces=2)], 4, 5.0),
        ([cost(1, 10.0, workers=2)], 4, 5.0),
        ([cost(3, 10.0, cpus=2)], 4, 15.0),  # two at a time
        ([cost(1, 10.0, cpus=8)], 4, 10.0),
        ([cost(10, 100.0, cpus=0.1)], 2, 500.0),  # twenty fit, and share two cores
        ([cost(2, 10.0), cost(1, 40.0)], 2, 40.0),  # as long as the longest
        ([cost(2, 10.0), cost(1, None)], 2, None),
        ([], 2, None),
    ],
)
def test_time_on_so_many_cores(trials: list[Cost], cores: int, seconds: float | None) -> None:
    assert seconds_on(cores, trials) == seconds


@pytest.mark.parametrize(
    ("trials", "most", "seconds"),
    [
        ([cost(10, 100.0)], 1, 1000.0),
        ([cost(10, 100.0)], 8, 500.0),  # no more than there are cores for
        ([cost(2, 10.0), cost(1, 40.0)], 1, 60.0),
        ([cost(3, 10.0, pieces=100)], 1, 15.0),  # each on both cores
    ],
)
def test_time_of_so_many_trials_at_a_time(trials: list[Cost], most: int, seconds: float) -> None:
    assert seconds_on(2, trials, most) == seconds
