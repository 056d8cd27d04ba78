"""Inference over HTTP, as tritonclient and curl use it."""

import json

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton

from jobs.deep_thinking.problems import problem
from tests.serving.conftest import Served
from tests.serving.messages import message, refused, stats, tensor
from tests.serving.models import bits, network


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_infer_in_json_and_binary(served: Served, binary_in: bool, binary_out: bool) -> None:
    """The answer over HTTP is that of the network in this process."""
    inputs = bits(3, 12)
    with torch.no_grad():
        expected = network(width=16, seed=1)(inputs, 5)[0].argmax(1)
    requested = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("prediction", "iterations")]
    result = served.client().infer("sums", tensor(inputs.numpy(), binary_in), outputs=requested, request_id="a b")
    np.testing.assert_array_equal(result.as_numpy("prediction"), expected)
    assert result.as_numpy("iterations").tolist() == [5, 5, 5]
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("sums", "2", "a b")
    assert [each["name"] for each in answer["outputs"]] == ["prediction", "iterations"]


def test_versions_are_different_models(served: Served) -> None:
    inputs = bits(4, 12)
    for version, width in (("1", 8), ("2", 16)):
        with torch.no_grad():
            expected = network(width=width, seed=int(version) - 1)(inputs, 5)[0].argmax(1)
        result = served.client().infer("sums", tensor(inputs.numpy()), model_version=version)
        np.testing.assert_array_equal(result.as_numpy("prediction"), expected)


def test_parameters_exit_rules_and_compression(served: Served) -> None:
    client, array = served.client(), bits(2, 9).numpy()
    result = client.infer("sums", tensor(array), parameters={"iterations": 11})
    assert result.as_numpy("iterations").tolist() == [11, 11]
    for rule in ("confidence", "unchanged"):
        result = client.infer("sums", tensor(array), parameters={"exit": rule, "iterations": 40})
        assert (result.as_numpy("iterations") <= 40).all() and result.as_numpy("verified").dtype == np.bool_
    for algorithm in ("gzip", "deflate"):
        client.infer(
            "sums", tensor(array), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )


def test_a_large_answer_is_compressed_for_those_who_read_that(served: Served) -> None:
    body, url = message(bits(8, 4000).numpy()), f"{served.url}/v2/models/sums/infer"
    plain = httpx.post(url, json=body, headers={"Accept-Encoding": "identity"}, timeout=60)
    compressed = httpx.post(url, json=body, headers={"Accept-Encoding": "gzip"}, timeout=60)
    assert "content-encoding" not in plain.headers and compressed.headers["content-encoding"] == "gzip"
    assert int(compressed.headers["content-length"]) < len(plain.content) / 4
    assert compressed.json() == plain.json()


def test_thirty_two_at_once_are_batched(served: Served) -> None:
    client = served.client(concurrency=32)
    client.infer("sums", tensor(bits(1, 16).numpy()))
    before = stats(served)
    iterations = 300  # so that others come while one is computed
    asked = {"parameters": {"iterations": iterations}}
    pending = [client.async_infer("sums", tensor(bits(1, 16, seed=seed).numpy()), **asked) for seed in range(32)]
    for seed, request in enumerate(pending):
        with torch.no_grad():
            expected = network(width=16, seed=1)(bits(1, 16, seed=seed), iterations)[0].argmax(1)
        np.testing.assert_array_equal(request.get_result().as_numpy("prediction"), expected)
    after = stats(served)
    assert after["inference_count"] - before["inference_count"] == 32
    assert after["execution_count"] - before["execution_count"] < 32
    assert max(each["batch_size"] for each in after["batch_stats"]) > 1


def test_bad_ones_among_good_ones_fail_alone(served: Served) -> None:
    array = bits(1, 16).numpy()
    bad = {
        "it is [1, 16]": tensor(array[0]),
        "it is INT64": [triton.InferInput("input", [1, 1, 16], "INT64").set_data_from_numpy(array.astype(np.int64))],
        "holds NaN": tensor(array * np.nan),
        "unknown input 'inputs'": tensor(array, name="inputs"),
        "another value": tensor(array * 3),
    }
    client = served.client(concurrency=32)
    good = [client.async_infer("sums", tensor(bits(1, 16, seed=seed).numpy())) for seed in range(20)]
    wrong = {sentence: client.async_infer("sums", inputs) for sentence, inputs in bad.items()}
    for request in good:
        assert request.get_result().as_numpy("prediction").shape == (1, 16)
    for sentence, request in wrong.items():
        with refused(400, sentence):
            request.get_result()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"not json", "not valid JSON"),
        (b'{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 1], "data": [NaN]}]}', "NaN"),
        (
            b'{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 1000000000000], "data": [1]}]}',
            "sizes of at most",
        ),
        (json.dumps(message(bits(1, 8).numpy(), iteration=3)).encode(), "did you mean 'iterations'"),
        (json.dumps(message(bits(1, 8).numpy(), iterations=10**6)).encode(), "1 to 10,000"),
        (json.dumps(message(bits(33, 8).numpy())).encode(), "at most 32 rows"),
        (json.dumps(message(bits(1, 8).numpy()) | {"outputs": [{"name": "logits"}]}).encode(), "unknown output"),
    ],
)
def test_what_makes_no_sense_gets_400_and_a_sentence(served: Served, body: bytes, sentence: str) -> None:
    answer = httpx.post(f"{served.url}/v2/models/sums/infer", content=body)
    assert answer.status_code == 400 and sentence in answer.json()["error"]


def test_a_maze_with_no_way_through_is_not_painted_on(served: Served) -> None:
    inputs, _ = problem("mazes", scale=1).sample(5, 1, seed=0)
    client = served.client()
    assert client.infer("mazes", tensor(inputs.numpy())).as_numpy("prediction").shape == (1, 7, 7)
    corridor = inputs[0].amin(0) == 1
    inputs[0, :, corridor] = 0
    with refused(400, "no way from the start to the end"):
        client.infer("mazes", tensor(inputs.numpy()))
