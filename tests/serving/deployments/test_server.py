"""The application over HTTP, as tritonclient and curl use it."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from ray.exceptions import TaskCancelledError
from starlette.requests import Request
from starlette.types import Message
from tritonclient.utils import InferenceServerException

from jobs.deep_thinking.problems import problem
from service.models import WEIGHTS
from service.store import open_store
from serving.deployments import server
from serving.deployments.server import EXTENSIONS
from serving.http.exchange import LEFT
from serving.http.settings import Attacks, ServeSettings
from tests.processes import wait_for
from tests.serving import in_process
from tests.serving.conftest import SETTINGS, Served
from tests.serving.models import bits, network, put
from tests.serving.unanswered import answered, asked


def tensor(array: np.ndarray, binary: bool = True, name: str = "input") -> list[triton.InferInput]:
    made = triton.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array, binary_data=binary)
    return [made]


def message(array: np.ndarray, **parameters: Any) -> dict[str, Any]:
    described = {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    return {"inputs": [described], "parameters": parameters}


def stats(served: Served, name: str = "sums", version: str = "2") -> dict[str, Any]:
    (statistics,) = served.client().get_inference_statistics(name, version)["model_stats"]
    return dict(statistics)


@contextlib.contextmanager
def refused(status: int, sentence: str) -> Iterator[None]:
    with pytest.raises(InferenceServerException) as raised:
        yield
    assert raised.value.status() == str(status)
    assert sentence in raised.value.message()


# ---- what the server and its models are ----------------------------------------------------------------------------


def test_health_and_metadata(served: Served) -> None:
    client = served.client()
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == EXTENSIONS
    metadata = client.get_model_metadata("sums")
    assert (metadata["name"], metadata["versions"]) == ("sums", ["1", "2"])
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, -1]}]
    assert [each["name"] for each in metadata["outputs"]] == ["prediction", "confidence", "iterations", "verified"]
    assert client.get_model_metadata("mazes")["outputs"][0]["shape"] == [-1, -1, -1]


def test_configuration_and_list(served: Served) -> None:
    """As Triton's clients read them."""
    config = served.client().get_model_config("sums")
    assert (config["name"], config["max_batch_size"]) == ("sums", SETTINGS.batching.max_rows)
    assert [(each["name"], each["data_type"], each["dims"]) for each in config["input"]] == [
        ("input", "TYPE_FP32", [1, -1])
    ]
    scalar = next(each for each in config["output"] if each["name"] == "confidence")
    assert scalar["dims"] == [1] and scalar["reshape"] == {"shape": []}
    listed = {each["name"]: each for each in httpx.get(f"{served.url}/v2/models").json()["models"]}
    assert listed["sums"]["versions"][:2] == ["1", "2"] and listed["sums"]["actions"] == ["infer", "infer_stream"]
    assert listed["walk"]["actions"] == [] and "has no endpoint" in listed["walk"]["reason"]


def test_models_are_not_loaded_on_request(served: Served) -> None:
    for act in (served.client().load_model, served.client().unload_model):
        with refused(501, "each replica loads a model when it is first asked for, and the longest unused leaves"):
            act("sums")


def test_statistics_have_the_fields_of_triton(served: Served) -> None:
    served.client().infer("sums", tensor(bits(1, 8).numpy()))
    statistics = stats(served)
    fields = "success fail queue compute_input compute_infer compute_output cache_hit cache_miss"
    assert list(statistics["inference_stats"]) == fields.split()
    for name in fields.split()[3:6]:
        assert statistics["inference_stats"][name]["count"] > 0 and statistics["inference_stats"][name]["ns"] > 0
    assert statistics["memory_usage"] == [] and statistics["response_stats"] == {}
    assert {"batch_size", "compute_input", "compute_infer", "compute_output"} == set(statistics["batch_stats"][0])


def test_which_models_are_ready(served: Served) -> None:
    client = served.client()
    assert client.is_model_ready("sums") and client.is_model_ready("sums", "1")
    assert not client.is_model_ready("sums", "3") and not client.is_model_ready("smus")
    assert not client.is_model_ready("walk"), "nothing serves its task"
    states = {(each["name"], each["version"]): each["state"] for each in client.get_model_repository_index()}
    ready = {("mazes", "1"): "READY", ("sums", "1"): "READY", ("sums", "2"): "READY"}
    assert ready.items() <= states.items() and states["walk", "1"] == "UNAVAILABLE"


def test_a_model_that_cannot_be_loaded_is_not_ready(served: Served) -> None:
    client, name = served.client(), "torn"
    put(served.store, name)
    folder = served.store / "models" / name
    weights = (folder / "1").read(WEIGHTS)
    (folder / "1").write(WEIGHTS, weights[:-4] + b"\0\0\0\1")
    try:
        assert not client.is_model_ready(name)
        (entry,) = [each for each in client.get_model_repository_index() if each["name"] == name]
        assert entry["state"] == "UNAVAILABLE" and "sha256 differs" in entry["reason"]
        assert not client.is_model_ready(name, "1")
    finally:
        folder.delete()


def test_unknown_models_versions_and_paths(served: Served) -> None:
    client = served.client()
    array = bits(1, 8).numpy()
    with refused(404, "no model 'smus' (did you mean 'sums'?)"):
        client.infer("smus", tensor(array))
    with refused(404, "no version 9 (it has [1, 2])"):
        client.infer("sums", tensor(array), model_version="9")
    with refused(404, "no version 'x'"):
        client.get_model_metadata("sums", "x")
    with refused(404, "is for the task 'walking', which has no endpoint"):
        client.infer("walk", tensor(array))
    for path in ("/v2/", "/v2/models/", "/v2/models/sums/inferr", "/v2/models/../../etc/passwd", "/v1/models/sums"):
        answer = httpx.get(served.url + path)
        assert answer.status_code == (200 if path in ("/v2/", "/v2/models/") else 404)
        assert answer.headers["content-type"] == "application/json"
    removal = httpx.delete(f"{served.url}/v2/models/sums")
    assert removal.status_code == 405 and removal.headers["allow"] == "GET, HEAD"
    assert httpx.head(f"{served.url}/v2/health/ready").status_code == 200


# ---- inference -------------------------------------------------------------------------------------------------------


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


# ---- size and time ---------------------------------------------------------------------------------------------------


def test_a_body_of_100_mb_is_refused_and_the_server_lives(served: Served) -> None:
    with refused(413, "the body must have at most 4,194,304 bytes"):
        served.client().infer("sums", tensor(np.zeros((1, 1, 25_000_000), np.float32)))
    client = served.client()
    assert client.is_server_live()
    client.infer("sums", tensor(bits(1, 8).numpy()))


def test_a_body_in_chunks_without_an_end_is_cut_off(served: Served) -> None:
    """The server answers as soon as the limit is passed, though the client never finishes."""
    connection = http.client.HTTPConnection(served.address, timeout=30)
    connection.putrequest("POST", "/v2/models/sums/infer")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"%x\r\n%s\r\n" % (1 << 16, b"x" * (1 << 16))
    for _ in range(65):
        connection.send(chunk)
    answer = connection.getresponse()
    assert answer.status == 413 and "4,194,304" in json.loads(answer.read())["error"]
    connection.close()


def test_a_zip_bomb_is_refused(served: Served) -> None:
    inputs = tensor(np.zeros((1, 1, 25_000_000), np.float32))
    with refused(413, "unpacks to more than 4,194,304 bytes"):
        served.client().infer("sums", inputs, request_compression_algorithm="gzip")


def test_models_leave_memory_and_come_back(served: Served) -> None:
    client, array = served.client(), bits(1, 8).numpy()
    for name in ("left", "right", "centre", "back"):
        put(served.store, name)
        client.infer(name, tensor(array))
    loaded = [each["name"] for each in client.get_model_repository_index() if each["loaded"]]
    assert set(loaded) == {"right", "centre", "back"} and len(loaded) == SETTINGS.models.loaded
    client.infer("left", tensor(array))


def test_a_damaged_model_answers_500_with_a_sentence(served: Served) -> None:
    put(served.store, "damaged")
    served.store.write("models/damaged/1/model.safetensors", b"<html>not found</html>")
    with refused(500, "model 'damaged' version 1"):
        served.client().infer("damaged", tensor(bits(1, 8).numpy()))


def test_a_client_that_leaves_takes_its_work_along(served: Served) -> None:
    """A request of the same kind would wait for the first to end, which takes minutes, were it not abandoned."""
    body = message(bits(4, 4000).numpy(), iterations=9_000)
    for _ in range(2):
        with asked(served.address, "sums/infer", body) as (client,):
            wait_for(lambda: stats(served)["running"]["batches"])
            served.client().infer("sums", tensor(bits(1, 8).numpy()))  # another kind is answered meanwhile
            assert not answered([client])
    wait_for(lambda: not stats(served)["running"]["batches"])


@pytest.mark.parametrize("error", [None, TaskCancelledError()], ids=["it says so", "Serve has given it up"])
def test_a_client_that_leaves_before_its_body_is_read_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    store = open_store(str(tmp_path))
    put(store, "sums")
    replica = in_process.server(ServeSettings(attacks=Attacks(enabled=False)), store.uri)
    monkeypatch.setattr(server.logger, "exception", lambda *what: pytest.fail(str(what)))

    async def receive() -> Message:
        if error:
            raise error
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/v2/models/sums/infer", "headers": [], "query_string": b""}
    assert asyncio.run(replica(Request(scope, receive))).status_code == LEFT


# ---- streams ---------------------------------------------------------------------------------------------------------


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def outputs(answer: dict[str, Any]) -> dict[str, list[Any]]:
    return {each["name"]: each["data"] for each in answer["outputs"]}


def test_a_stream_tells_every_iteration(served: Served) -> None:
    body = message(bits(2, 6).numpy(), iterations=8, exit="confidence") | {"id": "s"}
    with httpx.stream("POST", f"{served.url}/v2/models/sums/infer_stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        received = list(events(answer.iter_lines()))
    assert [event for event, _ in received] == ["iteration"] * 8 + ["answer"]
    assert [outputs(data)["iterations"] for _, data in received[:-1]] == [[t, t] for t in range(1, 9)]
    assert all(data["id"] == "s" for _, data in received)
    whole = httpx.post(f"{served.url}/v2/models/sums/infer", json=body).json()
    assert outputs(received[-1][1])["prediction"] == outputs(whole)["prediction"]


def test_a_stream_by_get_is_the_same_as_by_post(served: Served) -> None:
    """As EventSource asks for it, which sends no body."""
    url, body = f"{served.url}/v2/models/sums/infer_stream", message(bits(1, 6).numpy(), iterations=4)
    query = {"inputs": json.dumps(body["inputs"]), "iterations": 4}
    with httpx.stream("POST", url, json=body) as posted, httpx.stream("GET", url, params=query) as got:
        assert got.status_code == 200 and list(events(got.iter_lines())) == list(events(posted.iter_lines()))
    for changes, sentence in (
        ({"iteration": 4}, "did you mean 'iterations'?"),
        ({"iterations": -1}, "iterations"),
        ({"inputs": "x"}, "'inputs' is not valid JSON"),
    ):
        answer = httpx.get(url, params=query | changes)
        assert answer.status_code == 400 and sentence in answer.json()["error"]
    assert httpx.head(url, params=query).status_code == 405
    assert httpx.get(f"{served.url}/v2/models/digits/infer_stream", params=query).status_code == 404


def test_a_trace_is_given_back_and_one_that_is_none_is_not(served: Served) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    for path, status in (("/v2", 200), ("/v2/models/none", 404), ("/v2/health/live", 200)):
        answer = httpx.get(served.url + path, headers={"traceparent": trace})
        assert answer.status_code == status and answer.headers["traceparent"] == trace
    assert "traceparent" not in httpx.get(f"{served.url}/v2", headers={"traceparent": "00-1-2-3"}).headers


def test_what_is_wrong_with_a_stream_is_said_before_it_starts(served: Served) -> None:
    url = f"{served.url}/v2/models/sums/infer_stream"
    answer = httpx.post(url, json=message(bits(1, 8).numpy(), iterations=-1))
    assert answer.status_code == 400 and "iterations" in answer.json()["error"]
    binary = message(bits(1, 8).numpy()) | {"outputs": [{"name": "prediction", "parameters": {"binary_data": True}}]}
    answer = httpx.post(url, json=binary)
    assert answer.status_code == 400 and "JSON" in answer.json()["error"]


def test_a_stream_stops_when_its_client_leaves(served: Served) -> None:
    body = message(bits(1, 16).numpy(), iterations=10_000)
    with httpx.stream("POST", f"{served.url}/v2/models/sums/infer_stream", json=body) as answer:
        for index, _ in enumerate(events(answer.iter_lines())):
            if index == 3:
                assert stats(served)["running"]["streams"] == 1
                break
    wait_for(lambda: not stats(served)["running"]["streams"])
    streamed = stats(served)["streamed"]
    time.sleep(0.5)
    assert stats(served)["streamed"] == streamed < 9_000, "it thinks on"


def test_too_many_streams_are_told_to_come_back(served: Served) -> None:
    body = message(bits(1, 16).numpy(), iterations=10_000)
    url = f"{served.url}/v2/models/sums/infer_stream"
    with contextlib.ExitStack() as open_streams:
        held = []  # an iterator that nobody holds closes its stream
        for _ in range(SETTINGS.limits.streams):
            answer = open_streams.enter_context(httpx.stream("POST", url, json=body))
            held.append(events(answer.iter_lines()))
            next(held[-1])
        busy = httpx.post(url, json=body)
        assert busy.status_code == 503 and busy.headers["retry-after"] == "1" and "streamed" in busy.json()["error"]


# ---- hostile clients -------------------------------------------------------------------------------------------------


def test_garbage_on_the_wire_does_not_hurt(served: Served) -> None:
    host, port = served.address.split(":")
    for garbage in (b"\0" * 1000, b"POST /v2/models/sums/infer HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"GET"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(garbage)
    assert served.client().is_server_live()


def test_many_clients_of_every_sort(served: Served) -> None:
    """Good requests are all answered right in the middle of bad ones and of clients that leave."""
    url = f"{served.url}/v2/models/sums/infer"
    twin = network(width=16, seed=1)

    def good(seed: int) -> None:
        inputs = bits(1, 8 + seed % 3, seed)
        answer = httpx.post(url, json=message(inputs.numpy(), iterations=5 + seed % 2), timeout=60)
        expected = twin(inputs, 5 + seed % 2)[0].argmax(1).ravel().tolist()
        assert answer.status_code == 200, answer.text
        assert outputs(answer.json())["prediction"] == expected

    def bad(seed: int) -> None:
        assert httpx.post(url, content=b"{}" * seed, timeout=60).status_code == 400

    def gone(seed: int) -> None:
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(url, json=message(bits(2, 500, seed).numpy(), iterations=900), timeout=0.05)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        tasks = [pool.submit((good, bad, gone, good)[seed % 4], seed) for seed in range(60)]
        for task in tasks:
            task.result()
