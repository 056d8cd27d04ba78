"""The application over gRPC, as tritonclient uses it, beside the same over HTTP."""

import contextlib
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from service.models import WEIGHTS
from tests.processes import PATIENCE_SECONDS, wait_for
from tests.serving.conftest import SETTINGS, Bearer, Guarded
from tests.serving.messages import stats
from tests.serving.models import bits, pixels, put

pytestmark = pytest.mark.xdist_group("guarded")


@pytest.fixture(scope="module")
def served(guarded: Guarded) -> Guarded:
    return guarded


def connected(served: Guarded) -> triton.InferenceServerClient:
    client = triton.InferenceServerClient(served.grpc_address, ssl=True, root_certificates=served.certificate)
    client.register_plugin(Bearer(served.headers))
    return client


@pytest.fixture(scope="module")
def client(served: Guarded) -> Iterator[triton.InferenceServerClient]:
    with connected(served) as client:
        yield client


def tensors(library: Any, array: np.ndarray, name: str = "input", datatype: str = "FP32") -> list[Any]:
    return [library.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)]


@contextlib.contextmanager
def refused(code: str, sentence: str) -> Iterator[None]:
    with pytest.raises(InferenceServerException) as raised:
        yield
    assert raised.value.status() == f"StatusCode.{code}" and sentence in raised.value.message()
    assert "Traceback" not in str(raised.value) and "\n" not in raised.value.message()


def test_the_server_and_its_models_are_those_of_http(served: Guarded, client: triton.InferenceServerClient) -> None:
    over_http = served.client()
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("sums", "1")
    assert client.get_server_metadata(as_json=True) == over_http.get_server_metadata()
    metadata = client.get_model_metadata("sums")
    expected = over_http.get_model_metadata("sums")
    for part in ("inputs", "outputs"):
        described = [(each.name, each.datatype, list(each.shape)) for each in getattr(metadata, part)]
        assert described == [(each["name"], each["datatype"], each["shape"]) for each in expected[part]]
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("sums", ["1", "2"], "assay_thinking")
    index = {(each.name, each.version): each.state for each in client.get_model_repository_index().models}
    assert index == {(each["name"], each["version"]): each["state"] for each in over_http.get_model_repository_index()}
    with refused("NOT_FOUND", "no model 'smus'"):
        client.is_model_ready("smus")
    with refused("NOT_FOUND", "which has no endpoint"):
        client.is_model_ready("walk")


@pytest.mark.parametrize("version", ["", "1"])
def test_an_answer_is_that_of_http(served: Guarded, client: triton.InferenceServerClient, version: str) -> None:
    array, parameters = bits(3, 8).numpy(), {"iterations": 7, "exit": "confidence"}
    answers = [
        each.infer("sums", tensors(library, array), version, request_id="r", parameters=parameters)
        for each, library in ((client, triton), (served.client(), http))
    ]
    for name in ("prediction", "confidence", "iterations", "verified"):
        over_grpc, over_http = (answer.as_numpy(name) for answer in answers)
        assert over_grpc.dtype == over_http.dtype and np.array_equal(over_grpc, over_http), name
    response = answers[0].get_response()
    assert (response.id, response.model_version) == ("r", version or "2")


def test_requested_outputs_alone_are_answered(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("logits")]
    answer = client.infer("digits", tensors(triton, pixels(2).numpy(), "images"), outputs=outputs).get_response()
    assert [each.name for each in answer.outputs] == ["logits"]
    with refused("INVALID_ARGUMENT", "unknown output"):
        client.infer("digits", tensors(triton, pixels(2).numpy(), "images"), outputs=[triton.InferRequestedOutput("l")])


def test_what_is_wrong_has_the_code_and_the_sentence_of_http(
    served: Guarded, client: triton.InferenceServerClient
) -> None:
    array = bits(1, 8).numpy()
    with refused("NOT_FOUND", "no model 'smus' (did you mean 'sums'?)"):
        client.infer("smus", tensors(triton, array))
    with refused("NOT_FOUND", "has no version"):
        client.infer("sums", tensors(triton, array), "x")
    with refused("NOT_FOUND", "which has no endpoint"):
        client.infer("walk", tensors(triton, array))
    with refused("INVALID_ARGUMENT", "shape must be [-1, 1, -1]"):
        client.infer("sums", tensors(triton, array[0]))
    with refused("INVALID_ARGUMENT", "datatype must be FP32"):
        client.infer("sums", tensors(triton, array.astype(np.int32), datatype="INT32"))
    with refused("INVALID_ARGUMENT", "holds NaN"):
        client.infer("sums", tensors(triton, np.full_like(array, np.nan)))
    with refused("INVALID_ARGUMENT", "did you mean 'iterations'?"):
        client.infer("sums", tensors(triton, array), parameters={"iteration": 3})
    with refused("RESOURCE_EXHAUSTED", "larger than max"):
        client.infer("sums", tensors(triton, bits(1, SETTINGS.limits.body_bytes // 4).numpy()))
    put(served.store, "torn-over-grpc")
    served.store.write(f"models/torn-over-grpc/1/{WEIGHTS}", b"<html>")
    with refused("INTERNAL", "model 'torn-over-grpc' version 1"):
        client.infer("torn-over-grpc", tensors(triton, array))


def test_calls_are_counted_and_computed_together_with_requests_over_http(
    served: Guarded, client: triton.InferenceServerClient
) -> None:
    before = client.get_inference_statistics("sums", "2").model_stats[0]
    array, lasting = bits(1, 64).numpy(), {"iterations": 500}  # others come while the first one is computed
    for _ in range(4):
        client.async_infer("sums", tensors(triton, array), lambda result, error: None, parameters=lasting)
    served.client().infer("sums", tensors(http, array), parameters=lasting)

    def after() -> Any:
        return client.get_inference_statistics("sums", "2").model_stats[0]

    wait_for(lambda: after().inference_stats.success.count >= before.inference_stats.success.count + 5)
    assert after().inference_count - before.inference_count == 5
    assert after().execution_count - before.execution_count < 5
    assert {each.name for each in client.get_inference_statistics().model_stats} >= {"sums"}


def test_a_call_that_its_client_gives_up_is_abandoned(client: triton.InferenceServerClient) -> None:
    with refused("DEADLINE_EXCEEDED", ""):
        client.infer("sums", tensors(triton, bits(4, 4000).numpy()), parameters={"iterations": 9_000}, client_timeout=1)
    assert client.infer("sums", tensors(triton, bits(1, 8).numpy()))


# ---- streams ---------------------------------------------------------------------------------------------------------


class Stream:
    """A stream of the client. next(): the next result or error that came on it."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        client.start_stream(lambda result, error: self._answers.put((result, error)))

    def next(self) -> Any:
        result, error = self._answers.get(timeout=PATIENCE_SECONDS)
        return error or result


@pytest.fixture
def opened(served: Guarded) -> Iterator[triton.InferenceServerClient]:
    with connected(served) as client:
        yield client
        client.stop_stream(cancel_requests=True)


def is_final(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


def test_a_stream_answers_after_each_iteration(served: Guarded, opened: triton.InferenceServerClient) -> None:
    """As over HTTP; a model that answers at once has one answer; an error does not end it."""
    stream, array = Stream(opened), bits(2, 6).numpy()
    opened.async_stream_infer(
        "sums",
        tensors(triton, array),
        request_id="s",
        parameters={"iterations": 4, "exit": "confidence"},
        enable_empty_final_response=True,
    )
    results = [stream.next() for _ in range(5)]
    assert [each.as_numpy("iterations").tolist() for each in results[:4]] == [[t, t] for t in range(1, 5)]
    assert [is_final(each) for each in results] == [False] * 4 + [True]
    assert {each.get_response().id for each in results} == {"s"}
    whole = served.client().infer("sums", tensors(http, array), parameters={"iterations": 4, "exit": "confidence"})
    np.testing.assert_array_equal(results[-1].as_numpy("prediction"), whole.as_numpy("prediction"))

    for _ in range(2):
        opened.async_stream_infer("digits", tensors(triton, pixels(2).numpy(), "images"))
    opened.async_stream_infer("sums", tensors(triton, array), parameters={"iteration": 4})
    opened.async_stream_infer("smus", tensors(triton, array))
    opened.async_stream_infer("digits", tensors(triton, pixels(1).numpy(), "images"))
    answers = [stream.next() for _ in range(5)]
    assert [each.as_numpy("prediction").shape for each in (answers[0], answers[1], answers[4])] == [(2,), (2,), (1,)]
    assert all(is_final(answers[each]) for each in (0, 1, 4))
    assert "did you mean 'iterations'?" in answers[2].message()
    assert "no model 'smus' (did you mean 'sums'?)" in answers[3].message()


def test_a_stream_whose_client_leaves_is_computed_no_further(
    served: Guarded, opened: triton.InferenceServerClient
) -> None:
    stream = Stream(opened)
    opened.async_stream_infer("sums", tensors(triton, bits(1, 16).numpy()), parameters={"iterations": 10_000})
    stream.next()
    assert stats(served)["running"]["streams"] == 1
    opened.stop_stream(cancel_requests=True)
    wait_for(lambda: not stats(served)["running"]["streams"])
    assert stats(served)["streamed"] < 9_000
