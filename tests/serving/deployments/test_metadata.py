"""What the server says of itself and its models over HTTP, as tritonclient and curl ask for it."""

import httpx

from service.models import WEIGHTS
from serving.deployments.server import EXTENSIONS
from tests.serving.conftest import SETTINGS, Served
from tests.serving.messages import refused, stats, tensor
from tests.serving.models import bits, put


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


def test_a_trace_is_given_back_and_one_that_is_none_is_not(served: Served) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    for path, status in (("/v2", 200), ("/v2/models/none", 404), ("/v2/health/live", 200)):
        answer = httpx.get(served.url + path, headers={"traceparent": trace})
        assert answer.status_code == status and answer.headers["traceparent"] == trace
    assert "traceparent" not in httpx.get(f"{served.url}/v2", headers={"traceparent": "00-1-2-3"}).headers
