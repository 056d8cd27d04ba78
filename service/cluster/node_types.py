"""Nodes by what they hold: those that a cluster has, and those that its autoscaler may add.

Ray tells nobody what an autoscaler may add, so it is read where it is written: in the file of `ray up`, in the YAML of
KubeRay, or in the environment of the driver (ASSAY_NODE_TYPES), where `assay submit` puts it.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import InputError
from service.planning import yaml_text

VARIABLE = "ASSAY_NODE_TYPES"
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # where `ray up` leaves its file on the head node
UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True)
class NodeType:
    """Nodes that are alike. count: how many. holds: what each has, in Ray's names and units."""

    count: int
    holds: Mapping[str, float]

    def amount(self, name: str) -> float:
        """How much of a resource a node has."""
        return float(self.holds.get(name, 0))

    def room(self, asked: Mapping[str, float]) -> int:
        """How many workers of this size one node holds, were it empty."""
        rooms = [self.amount(name) / amount for name, amount in asked.items()]
        return int(min(rooms) + 1e-9)


def known_to_driver() -> list[NodeType]:
    """What the autoscaler of the driver's cluster may add; [] if nothing is known of one."""
    if text := os.environ.get(VARIABLE):
        return from_json(text)
    bootstrap = BOOTSTRAP.expanduser()
    return read(str(bootstrap)) if bootstrap.is_file() else []


def to_json(types: list[NodeType]) -> str:
    return json.dumps(
        [{"count": each.count, **{k: v for k, v in each.holds.items() if v < math.inf}} for each in types]
    )


def from_json(text: str) -> list[NodeType]:
    """`[{"count": 4, "CPU": 8, "GPU": 1}]`; memory (bytes) that is not told of is taken to suffice."""
    try:
        rows = [{"memory": math.inf, **{k: float(v) for k, v in row.items()}} for row in json.loads(text)]
        return [NodeType(int(row.pop("count")), row) for row in rows]
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(f'{VARIABLE}: {text!r} is not of the form [{{"count": 4, "CPU": 8}}]') from error


def read(path: str) -> list[NodeType]:
    """The node types of a file of `ray up`, or of a RayCluster, RayJob or RayService of KubeRay."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the cluster's file {path}: {error.strerror or error}") from error
    tree = yaml_text.parse(text)
    try:
        if isinstance(tree, dict) and "available_node_types" in tree:
            return _of_ray_up(tree)
        if isinstance(tree, dict) and "spec" in tree:
            return _of_kuberay(tree["spec"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: a node type is incomplete: {error!r}") from error
    raise InputError(f"{path} is neither a file of `ray up` (available_node_types) nor of KubeRay (spec)")


def _of_ray_up(tree: Any) -> list[NodeType]:
    most = int(tree.get("max_workers", 2))
    return [
        NodeType(min(int(each.get("max_workers", most)), most), each["resources"])
        for name, each in tree["available_node_types"].items()
        if name != tree.get("head_node_type")
    ]


def _of_kuberay(spec: Any) -> list[NodeType]:
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    types = []
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        starts = group.get("rayStartParams") or {}
        holds = {
            "CPU": quantity(starts.get("num-cpus", limits["cpu"])),
            "GPU": quantity(starts.get("num-gpus", limits.get("nvidia.com/gpu", 0))),
            "memory": quantity(starts.get("memory", limits["memory"])),
        }
        types.append(NodeType(int(group["maxReplicas"]), holds))
    return types


def quantity(text: Any) -> float:
    """A quantity as Kubernetes writes it: `8`, `500m`, `16Gi`."""
    if not (parts := re.fullmatch(r"([0-9.]+)(m|[KMGT]i|[kMGT])?", str(text))):
        raise ValueError(f"{text!r} is not a quantity")
    return float(parts[1]) * UNITS[parts[2] or ""]
