"""The description of the requests is true: of what is routed, and of what is answered to requests made from it."""

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from jobs.common.audio.files import wav
from service.store import open_store
from serving.deployments.server import Server
from serving.http import openapi, tensors
from serving.http.operations import OPERATIONS
from serving.http.settings import Models, ServeSettings
from tests.processes import PATIENCE_SECONDS
from tests.serving import in_process
from tests.serving.models import put, put_classifier, put_recogniser, put_segmenter
from tests.serving.squares import put_squares

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

SOUND = wav(0.5 * torch.sin(torch.arange(2000.0)), 8000)
schemathesis.openapi.media_type(
    "audio/wav",
    st.one_of(st.just(SOUND), st.binary()),
    aliases=[medium for medium in openapi.SOUNDS if medium != "audio/wav"],
)

CHECKS = {
    # no schema says which shape a model takes, or that bytes are an image
    "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "501"]},
    "negative_data_rejection": {"expected-statuses": ["400", "404", "405", "413", "415", "501"]},
    "not_a_server_error": {"expected-statuses": ["2xx", "4xx", "501"]},
}
SETTINGS = ServeSettings(models=Models(trusted=("tests",)))
EXAMPLES = 4 if settings.get_current_profile_name() == "ci" else 8  # of each operation


def test_every_operation_is_described_and_answered() -> None:
    handlers = {operation.handler for operation in OPERATIONS}
    assert set(openapi.CONTENTS) == handlers and all(hasattr(Server, f"_{handler}") for handler in handlers)
    described = openapi.description()
    assert {(path, method.upper()) for path, methods in described["paths"].items() for method in methods} == {
        (path, operation.method) for operation in OPERATIONS for path in operation.paths
    }
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def test_every_datatype_that_is_read_is_described() -> None:
    described = openapi.SCHEMAS["InputTensor"]["properties"]["datatype"]["enum"]
    assert {datatype for datatype in described if tensors.dtype_of("x", datatype)} == {*tensors.DATATYPES, tensors.BF16}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The description, with the names of models that are there, and an application that answers it."""
    store = open_store(str(tmp_path_factory.mktemp("described") / "store"))
    put(store, "sums")
    put_classifier(store, "digits")
    put_segmenter(store, "ground")
    put_recogniser(store, "words")
    put_squares(store, "squares")
    tree = openapi.description()
    tree["components"]["parameters"]["name"]["schema"] = {"enum": ["digits", "sums", "ground", "words", "squares"]}
    tree["components"]["parameters"]["version"]["schema"] = {"enum": ["1"]}
    how = {"base-url": "http://localhost", "request-timeout": PATIENCE_SECONDS, "checks": CHECKS}
    config = schemathesis.Config.from_dict(how)
    loaded = schemathesis.openapi.from_dict(tree, config=config)
    loaded.app = in_process.application(SETTINGS, store.uri)
    return loaded


schema = schemathesis.pytest.from_fixture("described")  # requests take seconds to make, also where no test is run


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_what_is_answered_is_what_is_described(case: Any) -> None:
    """Requests that fit the description, and such that do not."""
    case.call_and_validate()


def tensor(name: str, shape: list[int]) -> Any:
    return {"name": name, "datatype": "FP32", "shape": shape, "data": [0.5] * math.prod(shape)}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v2/models/{name}", None),
        ("GET", "/v2/models/{name}/config", None),
        ("POST", "/v2/models/{name}/infer", {"id": "1", "inputs": [tensor("images", [1, 1, 8, 8])]}),
        (
            "POST",
            "/v2/models/{name}/attack",
            {"inputs": [tensor("images", [1, 1, 8, 8])], "parameters": {"epsilon": 0.1, "attack": "fgsm"}},
        ),
        ("GET", "/v2/models/{name}/stats", None),
    ],
)
def test_answers_of_a_model_are_as_described(described: Any, method: str, path: str, body: Any) -> None:
    sent = {} if body is None else {"body": body, "media_type": "application/json"}
    case = described[path][method].Case(path_parameters={"name": "digits"}, **sent)
    response = case.call()
    assert response.status_code == 200
    case.validate_response(response)


def test_it_is_openapi_and_asks_for_no_key(described: Any) -> None:
    described.validate()
