"""Requests as clients write them, and what the answers to them hold."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.serving.conftest import Served


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


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def outputs(answer: dict[str, Any]) -> dict[str, list[Any]]:
    return {each["name"]: each["data"] for each in answer["outputs"]}
