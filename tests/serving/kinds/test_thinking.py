"""Deep-thinking models as endpoints, in this process: what they answer, what they refuse, when they stop."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.common.multiplications import CountMacs
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.thinking import think
from service.errors import BusyError, InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.settings import Batching, Limits, ServeSettings
from serving.kinds.thinking import DeepThinking
from serving.kinds.work import Abandoned
from tests.serving.models import bits, draft, network


def card_of(**changes: Any) -> ModelCard:
    return ModelCard(
        **draft(**changes).model_dump(), name="m", version=1, created="", parameters=1, bytes=1, sha256="", run=None
    )


def endpoint(net: nn.Module | None = None, limits: Limits | None = None, **changes: Any) -> DeepThinking:
    net = net or network(changes.get("architecture", "dt_net_1d"), **changes.get("arguments", {}))
    settings = ServeSettings(limits=limits or Limits(), batching=Batching(max_rows=8))
    return DeepThinking(card_of(**changes), net, settings, torch.device("cpu"))


def ask(model: DeepThinking, inputs: Tensor, **parameters: Any) -> dict[str, np.ndarray]:
    (answer,) = model.compute([model.prepare({"input": inputs.numpy()}, parameters)], lambda: False)
    return dict(answer)


def thoughts(net: nn.Module, inputs: Tensor, iterations: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Prediction and confidence after each iteration, straight from the definition."""
    answers = []
    with torch.no_grad():
        for iteration in range(1, iterations + 1):
            probability = net(inputs, iteration)[0].softmax(1)
            answers.append((probability.argmax(1).numpy(), probability.amax(1).flatten(1).mean(1).numpy()))
    return answers


def test_the_answer_is_that_of_the_network_after_so_many_iterations() -> None:
    net, inputs = network(), bits(4, 10)
    answer = ask(endpoint(net), inputs, iterations=7)
    prediction, confidence = thoughts(net, inputs, 7)[-1]
    np.testing.assert_array_equal(answer["prediction"], prediction)
    np.testing.assert_allclose(answer["confidence"], confidence, atol=1e-6)
    assert answer["iterations"].tolist() == [7] * 4
    parity = np.cumsum(inputs[:, 0].numpy() > 0, axis=1) % 2
    assert answer["verified"].tolist() == (prediction == parity).all(1).tolist()


def test_the_answer_has_the_types_and_shapes_that_the_metadata_promises() -> None:
    model = endpoint(architecture="dt_net_2d", net=network("dt_net_2d"))
    inputs, _ = problem("mazes", scale=1).sample(5, 2, seed=0)
    answer = ask(model, inputs)
    for spec in model.outputs:
        array = answer[spec.name]
        assert len(array.shape) == len(spec.shape)
        assert {"INT64": np.int64, "FP32": np.float32, "BOOL": np.bool_}[spec.datatype] == array.dtype
    assert answer["prediction"].shape == (2, *inputs.shape[2:])


def test_without_parameters_a_model_thinks_as_long_as_in_training() -> None:
    assert ask(endpoint(trained=5), bits(1, 8))["iterations"].tolist() == [5]


def test_exit_by_confidence_gives_the_most_confident_answer() -> None:
    net, inputs = network(seed=3), bits(6, 12)
    answer = ask(endpoint(net), inputs, exit="confidence", iterations=20)
    stream = thoughts(net, inputs, 20)
    confidence = np.stack([each for _, each in stream])  # (iterations, batch)
    np.testing.assert_allclose(answer["confidence"], confidence.max(0), atol=1e-6)
    for row, iteration in enumerate(answer["iterations"]):
        np.testing.assert_array_equal(answer["prediction"][row], stream[iteration - 1][0][row])
        assert confidence[iteration - 1, row] == pytest.approx(confidence[:, row].max(), abs=1e-6)


def test_exit_when_unchanged_stops_early_and_says_where() -> None:
    net, inputs = network(), bits(3, 8)
    answer = ask(endpoint(net), inputs, exit="unchanged", patience=4, iterations=500)
    assert (answer["iterations"] < 500).all()
    stream = thoughts(net, inputs, int(answer["iterations"].max()))
    for row, last in enumerate(answer["iterations"]):
        recent = [stream[iteration - 1][0][row] for iteration in range(last - 4, last + 1)]
        assert all(any((now == before).all() for before in recent[max(0, at - 2) : at])
                   for at, now in enumerate(recent) if at >= 1)  # fmt: skip


@pytest.mark.parametrize(
    "parameters", [{"iterations": 9}, {"exit": "confidence", "iterations": 15}, {"exit": "unchanged"}]
)
def test_requests_computed_together_are_answered_as_alone(parameters: dict[str, Any]) -> None:
    model = endpoint(network(seed=5))
    parts = [bits(2, 9, seed=1), bits(1, 9, seed=2), bits(3, 9, seed=3)]
    works = [model.prepare({"input": part.numpy()}, parameters) for part in parts]
    assert len({work.key for work in works}) == 1
    for part, together in zip(parts, model.compute(works, lambda: False), strict=True):
        alone = ask(model, part, **parameters)
        for name in ("prediction", "iterations", "verified"):
            np.testing.assert_array_equal(together[name], alone[name])


def test_only_equal_questions_share_a_key() -> None:
    model = endpoint()
    works = [
        model.prepare({"input": bits(1, length).numpy()}, parameters)
        for length, parameters in [
            (8, {}),
            (9, {}),
            (8, {"iterations": 6}),
            (8, {"exit": "confidence"}),
            (8, {"patience": 3}),
        ]
    ]
    assert len({work.key for work in works}) == 5


def test_a_stream_tells_every_iteration_and_ends_with_the_answer() -> None:
    model, inputs = endpoint(), bits(2, 6)
    parameters = {"exit": "confidence", "iterations": 12}
    events = list(model.stream(model.prepare({"input": inputs.numpy()}, parameters)))
    assert [event for event, _ in events] == ["iteration"] * 12 + ["answer"]
    assert [answer["iterations"].tolist() for _, answer in events[:-1]] == [[t, t] for t in range(1, 13)]
    for name, array in ask(model, inputs, **parameters).items():
        np.testing.assert_array_equal(events[-1][1][name], array)


@pytest.mark.parametrize("name", ["prefix_sums", "mazes"])
def test_the_last_answer_of_all_is_the_same_whether_or_not_those_before_are_read(name: str) -> None:
    """It is read out in numpy, those of a stream are in torch."""
    if name == "mazes":
        model = endpoint(architecture="dt_net_2d", net=network("dt_net_2d"))
        inputs, _ = problem("mazes", scale=1).sample(5, 3, seed=0)
    else:
        model, inputs = endpoint(), bits(3, 9)
    *_, (_, last) = model.stream(model.prepare({"input": inputs.numpy()}, {}))
    alone = ask(model, inputs)
    np.testing.assert_allclose(alone.pop("confidence"), last["confidence"], rtol=1e-6)
    for output, array in alone.items():
        assert array.dtype == last[output].dtype
        np.testing.assert_array_equal(array, last[output])


def maze(change: Callable[[Tensor], None]) -> Tensor:
    inputs, _ = problem("mazes", scale=1).sample(5, 1, seed=0)
    change(inputs)
    return inputs


def no_start(inputs: Tensor) -> None:
    inputs[:, 0][inputs[:, 0] != inputs[:, 1]] = 1
    inputs[:, 2][inputs[:, 1] == 1] = 1


def walled_in(inputs: Tensor) -> None:
    inputs[0, :, 1:-1, 1:-1] = torch.where(inputs[0, :, 1:-1, 1:-1].amin(0) == 1, 0, inputs[0, :, 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (maze(no_start), "start"),
        (maze(walled_in), "no way from the start to the end"),
        (maze(lambda inputs: inputs.mul_(0.5)), "pure black, white, green and red"),
    ],
)
def test_a_maze_that_cannot_be_solved_is_refused(inputs: Tensor, sentence: str) -> None:
    model = endpoint(architecture="dt_net_2d", net=network("dt_net_2d"))
    with pytest.raises(InputError, match=f"input 'input', row 0: .*{sentence}"):
        model.prepare({"input": inputs.numpy()}, {})


def test_a_maze_with_loops_is_answered_with_a_warning() -> None:
    model = endpoint(architecture="dt_net_2d", net=network("dt_net_2d"))
    open_field = maze(lambda inputs: None)
    corridor = (open_field[0].amin(0) == 0) & (open_field[0].amax(0) == 0)
    corridor[0] = corridor[-1] = False
    corridor[:, 0] = corridor[:, -1] = False
    open_field[0][:, corridor] = 1
    work = model.prepare({"input": open_field.numpy()}, {})
    assert work.warning.startswith("row 0: ") and "loops" in work.warning


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"iteration": 3}, "unknown parameter 'iteration' (did you mean 'iterations'?)"),
        ({"iterations": 0}, "must be a whole number from 1 to 10,000; it is 0"),
        ({"iterations": 10_001}, "it is 10,001"),
        ({"iterations": 2.0}, "it is 2"),
        ({"iterations": True}, "it is true"),
        ({"iterations": "9"}, "it is '9'"),
        ({"exit": "confident"}, "did you mean 'confidence'"),
        ({"exit": 1}, "unknown rule 1"),
        ({"patience": 0}, "parameter 'patience' must be a whole number from 1 to 10,000; it is 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        endpoint().prepare({"input": bits(1, 8).numpy()}, parameters)
    assert sentence in str(raised.value)


def test_values_that_are_no_bits_and_batches_that_are_too_large_are_refused() -> None:
    with pytest.raises(InputError, match="row 1: a bit is -0.5"):
        endpoint().prepare({"input": np.array([[[0.5]], [[1.0]]], np.float32)}, {})
    with pytest.raises(InputError, match="at most 8 rows"):
        endpoint().prepare({"input": bits(9, 4).numpy()}, {})


def test_a_feed_forward_network_ends_where_it_ends() -> None:
    model = endpoint(architecture="feed_forward_1d", arguments={"max_iterations": 6}, trained=6)
    assert ask(model, bits(1, 8), exit="confidence")["iterations"] <= 6
    with pytest.raises(InputError, match="must be a whole number from 1 to 6; it is 7"):
        model.prepare({"input": bits(1, 8).numpy()}, {"iterations": 7})


def test_the_work_is_counted_as_in_the_literature() -> None:
    """Multiplications of an iteration of the 2-D network with recall: pixels x 9 x ((w + c) w + 4 w^2)."""
    net = network("dt_net_2d", width=128)
    with torch.no_grad(), CountMacs() as counter:
        features = net.start(torch.zeros(1, 3, 24, 24))
        before = counter.total
        net.step(features, torch.zeros(1, 3, 24, 24), 0)
    total = counter.total - before
    assert total == 24 * 24 * 9 * ((128 + 3) * 128 + 4 * 128**2)
    assert total == pytest.approx(0.43e9, rel=0.01)


def test_more_work_than_allowed_is_refused_with_what_would_be() -> None:
    model = endpoint(limits=Limits(gmacs=0.001))
    with pytest.raises(InputError, match="at most ([0-9]+) iterations of this input are allowed") as raised:
        model.prepare({"input": bits(4, 100).numpy()}, {"iterations": 1000})
    most = int(str(raised.value).split("(at most ")[1].split()[0])
    model.prepare({"input": bits(4, 100).numpy()}, {"iterations": most})
    with pytest.raises(InputError):
        model.prepare({"input": bits(4, 100).numpy()}, {"iterations": most + 1})
    with pytest.raises(InputError, match="send fewer or smaller inputs"):
        model.prepare({"input": bits(8, 10_000).numpy()}, {"iterations": 1})


def test_a_stream_that_would_not_end_is_refused() -> None:
    model = endpoint(limits=Limits(stream_values=100))
    with pytest.raises(InputError, match="must have at most 100 numbers .*; it would have 200"):
        model.stream(model.prepare({"input": bits(2, 10).numpy()}, {"iterations": 10}))


class Slow(nn.Module):
    """A network that takes its time. steps: how many it was asked for."""

    max_iterations = None

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.inner, self.seconds, self.steps = network(), seconds, 0
        self.start, self.answer = self.inner.start, self.inner.answer

    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        self.steps += 1
        time.sleep(self.seconds)
        after: Tensor = self.inner.step(features, inputs, iteration)
        return after


def test_work_that_nobody_waits_for_stops() -> None:
    net = Slow()
    model = endpoint(net)
    net.steps = 0
    work = model.prepare({"input": bits(1, 8).numpy()}, {"iterations": 1000})
    with pytest.raises(Abandoned):
        model.compute([work], lambda: net.steps >= 10)
    assert net.steps == 10


def test_a_stream_that_is_closed_stops() -> None:
    net = Slow()
    model = endpoint(net)
    stream = model.stream(model.prepare({"input": bits(1, 8).numpy()}, {"iterations": 1000}))
    net.steps = 0
    for _ in range(3):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert net.steps == 3


def test_work_that_takes_too_long_ends_with_a_sentence() -> None:
    model = endpoint(Slow(0.02), limits=Limits(seconds=0.1))
    with pytest.raises(BusyError, match="no answer within 0.1 s"):
        ask(model, bits(1, 8), iterations=1000)


def test_an_answer_that_overflows_is_the_last_finite_one() -> None:
    """Features that grow without a bound end as infinities; the answer is the last one before them."""
    net = network(seed=1)
    for parameter in net.recurrent.parameters():
        parameter.data *= 40
    inputs = bits(3, 8)
    answer = ask(endpoint(net), inputs, iterations=60)
    assert (answer["iterations"] < 60).all() and (answer["iterations"] > 0).all()
    assert np.isfinite(answer["confidence"]).all()
    stream = list(think(net, problem("prefix_sums"), inputs, 60))
    np.testing.assert_array_equal(answer["prediction"], stream[-1].prediction.numpy())
    last = sum(thought.finite.long() for thought in stream)
    np.testing.assert_array_equal(answer["iterations"], last)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": {}}, "does not say how to use it"),
        ({"settings": {"problem": {"name": "prefix_sum"}, "trained_iterations": 5}}, "did you mean 'prefix_sums'"),
        ({"settings": {"problem": {"name": "os:system"}, "trained_iterations": 5}}, "add 'os' to models.trusted"),
        ({"settings": {"problem": {"name": "mazes"}, "trained_iterations": 5}}, "mazes needs one input of shape"),
        (
            {"settings": {"problem": {"name": "mazes", "options": {"scale": 3}}, "trained_iterations": 5}},
            "scale must be 1 or 2; it is 3",
        ),
        ({"settings": {"problem": {"name": "prefix_sums"}, "trained_iterations": 0}}, "greater than or equal to 1"),
        ({"inputs": (TensorSpec(name="input", datatype="FP32", shape=(-1, 2, -1)),)}, r"shape \[-1, 1, -1\]"),
        ({"inputs": ()}, "needs one input"),
        ({"net": nn.Linear(2, 2)}, "does not run on prefix_sums"),
        ({"net": network("dt_net_2d")}, "does not run on prefix_sums"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_its_card_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        endpoint(**{"net": network(), **changes})
