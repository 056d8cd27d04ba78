"""Counting against networks whose every answer is known beforehand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.deep_thinking.evaluation import Difficulty, EvaluationParams, answers_of_one, evaluate, first_solved
from jobs.deep_thinking.networks import network
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.thinking import think

SIZE = 6


class Scripted(nn.Module):
    """Answers as it is told: `script[iteration - 1]` is the share of instances that are right, the first ones.

    The logits are far apart (by the iteration), so confidence rises with time; `sure_at` marks the surest iteration.
    """

    max_iterations: int | None = None

    def __init__(self, script: list[float], sure_at: int | None = None) -> None:
        super().__init__()
        self.script = script
        self.sure_at = sure_at
        self.unused = nn.Parameter(torch.zeros(1))

    def start(self, inputs: Tensor) -> Tensor:
        return torch.zeros(len(inputs), 2, inputs.shape[2])

    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        truth = (inputs[:, 0] > 0).long().cumsum(1) % 2
        right = torch.arange(len(inputs)) < round(self.script[iteration] * len(inputs))
        answer = torch.where(right[:, None], truth, 1 - truth)
        sure = 9.0 if iteration + 1 == self.sure_at else 1.0
        return nn.functional.one_hot(answer, 2).movedim(-1, 1).float() * sure

    def answer(self, features: Tensor) -> Tensor:
        return features


def params(**changes: Any) -> EvaluationParams:
    return EvaluationParams(sizes=(Difficulty(size=SIZE),), **changes)


def measure(script: list[float], count: int = 20, trained: int = 2, sure_at: int | None = None, **changes: Any):
    prefix_sums = problem("prefix_sums")
    instances = prefix_sums.sample(SIZE, count, seed=0)
    net = Scripted(script, sure_at)
    return evaluate(net, prefix_sums, instances, SIZE, len(script), trained, params(**changes))


def test_accuracy_peak_and_overthinking():
    measured = measure([0.0, 0.5, 1.0, 0.8, 0.25])
    assert measured.accuracy.tolist() == [0.0, 0.5, 1.0, 0.8, 0.25]
    assert (measured.at_trained, measured.peak, measured.peak_iteration, measured.last) == (0.5, 1.0, 3, 0.25)
    assert measured.overthinking == 0.75
    assert measured.stability == pytest.approx((0.5 + 1.0 + 0.8 + 0.25) / 4)


def test_the_most_confident_answer_with_any_budget():
    measured = measure([0.1, 0.4, 0.9, 0.3], sure_at=3)
    # all are equally sure before iteration 3, where the first answer is kept; nothing later is surer than that one
    assert measured.accuracy_by_confidence.tolist() == [0.1, 0.1, 0.9, 0.9]
    assert measured.confident_iteration == 3


def test_the_rule_of_the_released_code_takes_the_last_of_equals():
    measured = measure([0.1, 0.4, 0.9, 0.3], confidence="released")
    assert measured.accuracy_by_confidence.tolist() == [0.1, 0.4, 0.9, 0.3] and measured.confident_iteration == 4
    assert measured.summary()["confidence"] == "released"
    with pytest.raises(ValueError, match="settle must be empty with confidence: released"):
        params(confidence="released", settle=3)


def test_answers_that_stay_settle():
    measured = measure([0.5, 1.0, 1.0, 1.0, 1.0, 0.0], patience=2)
    # those right from the start are unchanged at iterations 2 and 3, the others are first right at 2
    assert measured.settled_accuracy == 1.0
    assert measured.settled_iteration == pytest.approx((3 + 4) / 2)


def test_batches_do_not_matter():
    whole, parts = measure([0.5, 1.0, 0.25], count=20, batch=20), measure([0.5, 1.0, 0.25], count=20, batch=4)
    assert np.array_equal(whole.accuracy, parts.accuracy)
    assert whole.summary() == parts.summary()


@pytest.mark.parametrize("script", [[0.0] + [1.0] * 11, [0.3, 0.3] + [0.5, 0.9] * 5])
def test_leaving_off_settled_batches_does_not_change_the_curve(script):
    """Neither at a fixed answer nor in a cycle of two."""
    full, short = measure(script), measure(script, settle=3)
    assert full.accuracy.tolist() == short.accuracy.tolist()


def test_the_verifier_agrees_with_the_truth():
    assert measure([0.2, 0.7, 0.4]).verifier_agreement == 1.0


def test_a_feed_forward_network_is_evaluated_up_to_its_depth():
    prefix_sums = problem("prefix_sums")
    net = network("feed_forward_1d", channels=1, width=4, max_iterations=3)
    measured = evaluate(net, prefix_sums, prefix_sums.sample(SIZE, 5, 0), SIZE, 50, 3, params())
    assert len(measured.accuracy) == 3
    assert measured.at_trained == measured.last == measured.stability


def test_features_that_overflow_are_reported_and_keep_the_last_answer():
    prefix_sums = problem("prefix_sums")
    torch.manual_seed(0)
    net = network("dt_net_1d", channels=1, width=8, recall=False)
    with torch.no_grad():
        for parameter in net.recurrent.parameters():
            parameter.mul_(30)
    measured = evaluate(net, prefix_sums, prefix_sums.sample(SIZE, 5, 0), SIZE, 60, 3, params())
    assert measured.finite == 0.0
    assert np.isfinite(measured.accuracy).all()


def test_the_instance_that_is_shown_is_the_first_that_is_solved_at_the_end():
    prefix_sums = problem("prefix_sums")
    inputs, _ = prefix_sums.sample(SIZE, 8, 0)

    class SolvesSome(Scripted):
        """Right about strings that begin with a one, at the third iteration."""

        def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
            self.script = [0.0, 0.0, float(inputs[0, 0, 0] > 0)]
            return super().step(features, inputs, iteration)

    with_a_one = int((inputs[:, 0, 0] > 0).nonzero()[0])
    assert with_a_one > 0
    assert first_solved(SolvesSome([]), prefix_sums, inputs, 3) == with_a_one
    assert first_solved(SolvesSome([]), prefix_sums, inputs, 2) is None


def test_the_story_of_one_instance_has_every_change():
    prefix_sums = problem("prefix_sums")
    inputs, _ = prefix_sums.sample(SIZE, 1, 0)
    net = Scripted([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    answers = answers_of_one(net, prefix_sums, inputs, 6)
    assert list(answers) == [1, 3, 5, 6]
    for thought in think(net, prefix_sums, inputs, 6):
        if thought.iteration in answers:
            assert torch.equal(answers[thought.iteration], thought.prediction[0])
