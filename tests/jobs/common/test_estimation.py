"""Measurements that the trials of a sweep share, and those that they must not share."""

from typing import Any

import pytest

from jobs.common import estimation
from jobs.common.estimation import measured_once, training_seconds_of
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.models.network_params import StoredNetwork
from service import spec
from service.planning import plan
from service.planning.costs import costs


def test_a_measurement_is_made_once_for_each_content_of_its_arguments() -> None:
    calls: list[tuple[Any, ...]] = []

    @measured_once
    def measure(*arguments: Any) -> int:
        calls.append(arguments)
        return len(calls)

    deep, wide = ({"name": "cifar_resnet", "options": {"depth": 8, "width": width}} for width in (1, 2))
    different: list[tuple[Any, ...]] = [
        (ClassifierParams.model_validate(deep), 10),
        (ClassifierParams.model_validate(wide), 10),
        (ClassifierParams.model_validate(deep), 11),
        (StoredNetwork(name="mypackage.module:build"), 10),
        (StoredNetwork(name="mypackage.module:build", options={"bias": True}), 10),
        (StoredNetwork(name="mypackage.module:build", options={"bias": 1}), 10),
        ((3, 32, 32),),
        ((3, 32), 32),
    ]
    first = [measure(*arguments) for arguments in different]
    assert first == list(range(1, 1 + len(different)))
    again = [(ClassifierParams.model_validate(deep), 10), *different[1:]]
    assert [measure(*arguments) for arguments in again] == first and len(calls) == len(different)


def test_trials_of_a_sweep_measure_a_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods and two ends of training are four costs of one network; another width is another network."""
    timed: list[int] = []

    def least_seconds(work: object, times: int) -> float:
        timed.append(times)
        return 1.0

    monkeypatch.setattr(estimation, "least_seconds", least_seconds)
    document = {
        "job": "free_training",
        "params": {
            "data": {"name": "digits"},
            "network": {"name": "cifar_resnet"},
            "threat": {"epsilon": 0.1},
        },
        "sweep": {
            "variants": {"natural": {"params.method": {"kind": "natural"}}, "pgd": {"params.method": {"kind": "pgd"}}},
            "grid": {
                "params.training.updates": [300, 500],
                "params.network.options": [{"blocks": [1], "first": 5}, {"blocks": [1], "first": 7}],
            },
        },
    }
    estimates = [cost.estimate for cost in costs(plan.trials(spec.build(document)))]
    assert len(estimates) == 8 and len(timed) == 2
    assert len({estimate.core_seconds for estimate in estimates}) == 4


def test_seconds_are_those_of_the_network() -> None:
    small, large = (ClassifierParams(name="cifar_resnet", options={"blocks": [blocks]}) for blocks in (1, 9))
    assert training_seconds_of(large, 10, (1, 16, 16)) > 2 * training_seconds_of(small, 10, (1, 16, 16))
