"""Probes: the penalty is the one of leaving each clip out, one at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifier

from jobs.sonification.probes import Target, fitted

PENALTIES = (0.1, 10.0, 1000.0)


def left_out(model: Any, inputs: np.ndarray, targets: np.ndarray) -> float:
    """The mean squared error of every row by the model of all others."""
    errors = []
    for row in range(len(inputs)):
        others = np.arange(len(inputs)) != row
        errors.append(float((model.fit(inputs[others], targets[others]).predict(inputs[[row]])[0] - targets[row]) ** 2))
    return float(np.mean(errors))


@pytest.mark.parametrize("noise", [0.1, 3.0, 30.0])
def test_the_penalty_of_a_number_is_that_of_the_least_error_of_clips_left_out(noise: float) -> None:
    draws = np.random.default_rng(0)
    inputs = draws.normal(size=(60, 12))
    values = inputs[:, 0] + noise * draws.normal(size=60) + 5.0
    target = Target("pitch", True, values[:40], values[40:])
    means = {"conv1": (torch.tensor(inputs[:40]), torch.tensor(inputs[40:]))}
    result = fitted({"layer": "conv1", "target": 0}, (PENALTIES, [target], means))
    errors = {penalty: left_out(Ridge(penalty), inputs[:40], values[:40]) for penalty in PENALTIES}
    assert result["penalty"] == min(errors, key=lambda penalty: errors[penalty])
    assert result["score"] == pytest.approx(
        Ridge(result["penalty"]).fit(inputs[:40], values[:40]).score(inputs[40:], values[40:])
    )


def test_the_score_of_a_class_is_that_of_clips_to_test() -> None:
    draws = np.random.default_rng(1)
    inputs = draws.normal(size=(90, 6))
    names = np.array(["a", "b", "c"])[inputs[:, :3].argmax(1)]
    target = Target("voice", False, names[:60], names[60:])
    means = {"mel": (torch.tensor(inputs[:60]), torch.tensor(inputs[60:]))}
    result = fitted({"layer": "mel", "target": 0}, (PENALTIES, [target], means))
    expected = RidgeClassifier(result["penalty"]).fit(inputs[:60], names[:60]).score(inputs[60:], names[60:])
    assert result["score"] == expected > 0.7 > result["chance"]
    only = fitted({"layer": "mel", "target": 0}, ((7.0,), [target], means))
    assert only["penalty"] == 7.0
