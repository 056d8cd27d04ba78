"""The stream of answers and the exit rules, on scripted networks whose every answer is known."""

import pytest
import torch
from torch import Tensor, nn

from jobs.deep_thinking.networks import network
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.thinking import MostConfident, Thought, Unchanged, think

PREFIX = problem("prefix_sums")


class Scripted(nn.Module):
    """Its logit of class 1 at iteration t (counted from 1) is script[:, t - 1], at every position."""

    max_iterations = None

    def __init__(self, script: list[list[float]]) -> None:
        super().__init__()
        self.script = torch.tensor(script)

    def start(self, inputs: Tensor) -> Tensor:
        return torch.zeros(len(inputs), 1, inputs.shape[2])

    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        return self.script[:, iteration].view(-1, 1, 1).expand_as(features)

    def answer(self, features: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(features), features], dim=1)


def thoughts(*script: list[float]) -> list[Thought]:
    inputs = torch.full((len(script), 1, 2), 0.5)
    return list(think(Scripted(list(script)), PREFIX, inputs, len(script[0])))  # type: ignore[arg-type]


def test_predictions_and_confidence() -> None:
    first, second = thoughts([2.0, -1.0])
    assert first.prediction.tolist() == [[1, 1]] and second.prediction.tolist() == [[0, 0]]
    torch.testing.assert_close(first.confidence, torch.tensor([2.0]).sigmoid())
    torch.testing.assert_close(second.confidence, torch.tensor([1.0]).sigmoid())


def test_answers_equal_those_of_the_network() -> None:
    torch.manual_seed(0)
    mazes = problem("mazes", scale=1)
    inputs, _ = mazes.sample(7, 5, 0)
    built = network("dt_net_2d", channels=3, width=8)
    for thought in think(built, mazes, inputs, 6, first=3):
        logits, _ = built(inputs, thought.iteration)
        counted = mazes.counted(inputs)
        assert torch.equal(thought.prediction, logits.argmax(1) * counted)
        probability = (logits.softmax(1).amax(1) * counted).flatten(1).sum(1) / counted.flatten(1).sum(1)
        torch.testing.assert_close(thought.confidence, probability)
    assert thought.iteration == 6
    assert [each.iteration for each in think(built, mazes, inputs, 6, first=3)] == [3, 4, 5, 6]


def test_an_overflow_keeps_the_last_finite_answer_of_that_instance_alone() -> None:
    found = thoughts([1.0, float("inf"), -3.0], [1.0, -2.0, 3.0])
    assert [each.finite.tolist() for each in found] == [[True, True], [False, True], [False, True]]
    assert found[-1].prediction[:, 0].tolist() == [1, 1]
    torch.testing.assert_close(found[-1].confidence, torch.tensor([1.0, 3.0]).sigmoid())


def test_thinking_can_be_left_at_any_time() -> None:
    steps = []

    class Counting(Scripted):
        def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
            steps.append(iteration)
            return super().step(features, inputs, iteration)

    for thought in think(Counting([[1.0] * 100]), PREFIX, torch.full((1, 1, 2), 0.5), 100):  # type: ignore[arg-type]
        assert not torch.is_inference_mode_enabled(), "the caller's own work is not in inference mode"
        if thought.iteration == 3:
            break
    assert steps == [0, 1, 2]


def test_the_most_confident_answer_is_held() -> None:
    rule = MostConfident()
    for thought in thoughts([1.0, -3.0, 2.0, 3.0], [1.0, 0.5, 0.2, 0.1]):
        rule.see(thought)
    assert rule.iteration is not None and rule.prediction is not None
    assert rule.iteration.tolist() == [2, 1], "of equals the first"
    assert rule.prediction[:, 0].tolist() == [0, 1]


def test_answers_that_float32_is_equally_sure_of_differ_in_their_doubt() -> None:
    """Overthinking must not hide behind confidences of 1: a plain network that forgets is sure all the time."""
    script = [30.0, 800.0, -60.0, -40.0], [20.0, 20.0, -20.0, -20.0]
    exact, released = MostConfident("exact"), MostConfident("released")
    for thought in thoughts(*script):
        assert (thought.confidence == 1).all()
        assert thought.doubt.tolist() == pytest.approx([-abs(each[thought.iteration - 1]) for each in script], rel=1e-8)
        exact.see(thought)
        released.see(thought)
    assert exact.iteration is not None and exact.iteration.tolist() == [2, 1], "the surest; of equals the first"
    assert released.iteration is not None and released.iteration.tolist() == [4, 4], "of equals the last"


def test_the_doubt_is_what_the_mean_over_all_positions_that_count_lacks() -> None:
    mazes, net = problem("mazes", scale=1), network("dt_net_2d", channels=3, width=4, recall=True, group_norm=False)
    inputs, _ = mazes.sample(9, 3, 0)
    for thought in think(net.eval(), mazes, inputs, 2):
        lacking = 1 - thought.confidence.double()
        torch.testing.assert_close(thought.doubt.exp(), lacking, rtol=1e-5, atol=1e-6)


def settle(patience: int, *script: list[float]) -> Unchanged:
    rule = Unchanged(patience)
    for thought in thoughts(*script):
        rule.see(thought)
    return rule


def test_unchanged_waits_for_its_patience() -> None:
    rule = settle(3, [1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0], [1.0] * 8)
    assert rule.settled is not None and rule.iteration is not None and rule.prediction is not None
    assert rule.settled.tolist() == [True, True]
    assert rule.iteration.tolist() == [5, 4]
    assert rule.prediction[:, 0].tolist() == [0, 1], "what comes after settling does not count"


def test_a_cycle_of_two_settles_on_its_more_confident_answer() -> None:
    rule = settle(4, [1.0, 2.0, -0.5, 2.0, -0.5, 2.0, -0.5, 2.0, -0.5, 2.0], [2.0, -0.5] * 5)
    assert rule.settled is not None and rule.prediction is not None
    assert rule.settled.all()
    assert rule.prediction[:, 0].tolist() == [1, 1]


def test_what_never_repeats_never_settles() -> None:
    torch.manual_seed(0)
    mazes = problem("mazes", scale=1)
    answers = torch.randint(0, 2, (20, 1, 9, 9))
    rule = Unchanged(2)
    for index, answer in enumerate(answers):
        rule.see(Thought(index + 1, answer, torch.full((1,), 0.7), torch.zeros(1).double(), torch.tensor([True])))
    assert mazes.dimensions == 2 and rule.settled is not None and not rule.settled.any()
    assert rule.iteration is not None and rule.iteration.tolist() == [20]
