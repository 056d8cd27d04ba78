"""A network that was converted for TensorFlow.js, read as data: the nodes of its graph and their numbers.

It is a text (.json: `modelTopology` is a GraphDef of TensorFlow, `weightsManifest` says how numbers follow each other)
and a file of numbers (.bin). Source: the documentation of tensorflowjs_converter, output of the kind "graph-model".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from service.errors import InputError

MOST_TEXT = 16 << 20  # bytes
MOST_NUMBERS = 1 << 30  # bytes


class Node(BaseModel):
    """An operation of the graph: its name, what it does, the names of the nodes that it takes, and how it does it."""

    name: str
    op: str
    input: list[str] = []
    attr: dict[str, dict[str, Any]] = {}


class _Quantization(BaseModel):
    dtype: Literal["float16"]


class _Numbers(BaseModel):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=8)]
    dtype: Literal["float32", "int32"]
    quantization: _Quantization | None = None

    @property
    def stored(self) -> np.dtype:
        if self.dtype == "int32":
            return np.dtype("<i4")
        return np.dtype("<f4" if self.quantization is None else "<f2")


class _Group(BaseModel):
    paths: list[str]
    weights: list[_Numbers]


class _Topology(BaseModel):
    node: list[Node]


class _Text(BaseModel):
    format: Literal["graph-model"]
    modelTopology: _Topology
    weightsManifest: Annotated[list[_Group], Field(min_length=1, max_length=1)]


@dataclass(frozen=True)
class GraphFile:
    """What is in the two files."""

    name: str
    nodes: dict[str, Node]
    """by name, without constants"""
    constants: dict[str, np.ndarray]
    """float32 or int32, by the name of their node"""

    def needed(self, start: str, outputs: Sequence[str]) -> list[Node]:
        """The nodes that outputs are computed with from `start`, each after those that it takes.

        InputError if a node is not there, if a node that is not `start` takes nothing, or if they go round in a circle.
        """
        graph: dict[str, list[str]] = {}
        waiting = list(outputs)
        while waiting:
            name = waiting.pop()
            if name in graph or name == start:
                continue
            if name not in self.nodes:
                raise InputError(f"{self.name} must have a node {name!r}; it has none")
            graph[name] = [each for each in self.nodes[name].input if each not in self.constants]
            waiting += graph[name]
        try:
            return [self.nodes[name] for name in TopologicalSorter(graph).static_order() if name != start]
        except CycleError as error:
            raise InputError(f"nodes of {self.name} go round in a circle: {' -> '.join(error.args[1][:4])}") from error


def read(text: Path, numbers: Path) -> GraphFile:
    """The nodes and constants. InputError, one sentence, if one of the files is something else or is damaged."""
    for file, most in ((text, MOST_TEXT), (numbers, MOST_NUMBERS)):
        if (size := file.stat().st_size) > most:
            raise InputError(f"{file.name} must have at most {most:,} bytes; it has {size:,}")
    try:
        parsed = _Text.model_validate_json(text.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{text.name} is no graph of TensorFlow.js: {place}: {first['msg']}") from error
    nodes = {node.name: node for node in parsed.modelTopology.node}
    if len(nodes) != len(parsed.modelTopology.node):
        raise InputError(f"nodes of {text.name} must have names of their own; some share one")
    constants = _constants(parsed.weightsManifest[0].weights, numbers)
    if missing := [name for name, node in nodes.items() if node.op == "Const" and name not in constants]:
        raise InputError(f"{numbers.name} must hold the constant {missing[0]!r}; it does not")
    others = {name: node for name, node in nodes.items() if node.op != "Const"}
    if shared := others.keys() & constants.keys():
        raise InputError(f"{min(shared)!r} of {text.name} must be a node or numbers; it is both")
    return GraphFile(text.name, others, constants)


def _constants(listed: list[_Numbers], file: Path) -> dict[str, np.ndarray]:
    """The numbers one after the other, each as long as its shape says; together they are the whole file."""
    content = file.read_bytes()
    sizes = [prod(each.shape) * each.stored.itemsize for each in listed]
    if sum(sizes) != len(content):
        raise InputError(f"{file.name} must have {sum(sizes):,} bytes, as its text says; it has {len(content):,}")
    constants, place = {}, 0
    for each, size in zip(listed, sizes, strict=True):
        if each.name in constants:
            raise InputError(f"numbers of {file.name} must have names of their own; two are {each.name!r}")
        values = np.frombuffer(content, each.stored, prod(each.shape), place).reshape(each.shape)
        constants[each.name] = values.astype(each.dtype)
        place += size
    return constants
