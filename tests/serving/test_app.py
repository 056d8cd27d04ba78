"""The application before it runs: whether the machine can hold it, and what the user is told to try."""

import json
import shlex
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from service.errors import ClusterError
from serving import app
from serving.app import build, greeting, shortage
from serving.deployments.replica import prepare_process
from serving.http.settings import Attacks, Grpc, Replicas, ServeSettings
from tests.serving.kinds.test_classification import card_of
from tests.serving.kinds.test_thinking import card_of as thinking_card


def test_too_few_cores_are_told_at_the_start() -> None:
    assert shortage(ServeSettings(), {"CPU": 2.0}) is None
    assert shortage(ServeSettings(), {"CPU": 1.0}) == "the endpoints need 2 CPU cores, and Ray has 1"
    assert shortage(ServeSettings(attacks=Attacks(enabled=False)), {"CPU": 1.0}) is None
    graphics = ServeSettings(attacks=Attacks(replicas=Replicas(gpus=0.5, min=2, max=2)))
    assert shortage(graphics, {"CPU": 8.0}) == "the endpoints need 1 GPUs, and Ray has 0"
    assert shortage(graphics, {"CPU": 8.0, "GPU": 1.0}) is None


@pytest.mark.parametrize("enabled", [True, False])
def test_attacks_have_a_deployment_of_their_own(enabled: bool) -> None:
    settings = ServeSettings(attacks=Attacks(enabled=enabled, replicas=Replicas(cpus=3, threads=3)))
    application = build(settings, "store")
    attacks = application._bound_deployment.init_args[2]
    assert (attacks is not None) == enabled
    if attacks is not None:
        deployment = attacks._bound_deployment
        assert deployment.ray_actor_options["num_cpus"] == 3 and deployment.max_ongoing_requests == 8
        assert deployment.init_args[0].replicas.threads == 3


def test_grpc_needs_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tritonclient.grpc", "serving.deployments.grpc_server", "serving.grpc.messages"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ClusterError, match="grpc needs"):
        build(ServeSettings(grpc=Grpc()), "store")


def test_the_command_to_try_fits_the_model() -> None:
    thinking, classifier = (greeting(ServeSettings(), [card]) for card in (thinking_card(), card_of()))
    body = json.loads(shlex.split(thinking.splitlines()[2])[-1])
    assert np.prod(body["inputs"][0]["shape"]) == len(body["inputs"][0]["data"])
    assert "image/png" in shlex.split(classifier.splitlines()[2])[-1]


def test_a_replica_computes_on_what_it_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is only visible is not used, and one that is reserved has to be usable."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    threads = torch.get_num_threads()
    assert prepare_process(Replicas(threads=threads), "replicas") == torch.device("cpu")
    assert prepare_process(Replicas(threads=threads, gpus=0.5), "replicas") == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClusterError, match=r"^attacks.replicas.gpus: 1 is reserved, but torch .* can use no GPU"):
        prepare_process(Replicas(threads=threads, gpus=1), "attacks.replicas")


def test_why_a_replica_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve itself says only which deployments failed."""

    class Overview:
        message = 'The deployment failed to start 3 times in a row. Error:\nray::ServeReplica\n  File "server.py"\n'
        deployments: ClassVar[dict[str, Any]] = {}

    class Status:
        applications: ClassVar[dict[str, Any]] = {}

    failed = RuntimeError("Deploying application assay failed: Failed to update the deployments ['models'].")
    monkeypatch.setattr(app.ray_serve, "status", Status)
    assert app._reason(failed) == str(failed)
    overview = Overview()
    overview.message += "service.errors.ClusterError: replicas.gpus: 1 is reserved, but torch can use no GPU"
    monkeypatch.setitem(Overview.deployments, "models", overview)
    monkeypatch.setitem(Status.applications, app.NAME, overview)
    assert app._reason(failed) == "replicas.gpus: 1 is reserved, but torch can use no GPU"
