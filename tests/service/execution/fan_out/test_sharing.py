"""What cells share: it comes back as it was, is known by its content, and no cell changes it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.cluster.tasks import RayTasks
from service.errors import InputError
from service.execution.fan_out import sharing
from service.spec import Resources
from tests.service.execution.fan_out.handles import handle, nowhere


def test_shared_comes_back_as_it_was() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    network[0].bias = torch.nn.Parameter(network[1].weight, requires_grad=False)  # type: ignore[index]
    network.register_parameter("tied", network[1].weight)  # type: ignore[index]
    images = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last)
    whole = {
        "network": network,
        "images": images,
        "slice": torch.arange(24).reshape(4, 6)[1:, ::2],
        "complex": torch.view_as_complex(torch.randn(3, 2)).conj(),
        "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "nothing": torch.zeros(0, 3),
        "array": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "names": {"b", "a"},
    }
    back = sharing.unpack(sharing.pack(whole)).value
    assert back["images"].is_contiguous(memory_format=torch.channels_last)
    for name in ("images", "slice", "complex", "half", "nothing"):
        assert torch.equal(back[name], whole[name]) and back[name].dtype == whole[name].dtype  # type: ignore[arg-type,union-attr]
    assert back["names"] == {"a", "b"} and np.array_equal(back["array"], whole["array"])  # type: ignore[arg-type]
    assert back["network"].tied is back["network"][1].weight, "tied weights stay tied"
    assert torch.equal(back["network"](back["images"]), network(images))
    with torch.no_grad():
        back["network"][0].weight.zero_()
    assert network[0].weight.abs().sum() > 0, "a worker's module is its own"  # type: ignore[union-attr,operator]


def test_the_digest_is_of_the_content() -> None:
    def digest(value: Any) -> str:
        return sharing.pack(value).digest

    text = "".join(["lo", "ss"])
    assert digest([text, text]) == digest(["loss", "".join(["lo", "ss"])]), "not of which objects are one"
    network = torch.nn.Linear(3, 2)
    before = digest(network)
    assert digest(network) == before
    with torch.no_grad():
        network.weight[0, 0] += 1e-3
    assert digest(network) != before
    tensor = torch.arange(6)
    different = [tensor, tensor.float(), tensor.reshape(2, 3), tensor.numpy(), tensor.tolist(), tensor.reshape(2, 3).T]
    assert len({digest(each) for each in different}) == len(different)
    said = Resources(cpus=1)
    assert digest(Resources()) == digest(said) != digest(Resources(cpus=2)), "not of which defaults were said aloud"
    assert sharing.unpack(sharing.pack(said)).value == said
    loop: list[Any] = [1]
    loop.append(loop)
    assert sharing.unpack(sharing.pack(loop)).value[1][0] == 1, "an object that contains itself"
    script = (
        "from service.execution.fan_out import sharing; print(sharing.pack({'a': {'x', 'y', 'z'}, 'b': [1.5]}).digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == digest({"a": {"z", "y", "x"}, "b": [1.5]}), "the same in every process"


@pytest.mark.parametrize("how", ["serial", "ray"])
def test_writing_to_what_is_shared(tmp_path: Path, how: str, request: pytest.FixtureRequest) -> None:
    executor = None
    if how == "ray":
        request.getfixturevalue("ray_session")
        executor = RayTasks(Resources(), 0, nowhere)
    run, large = handle(tmp_path, executor), np.zeros(200_000)
    with pytest.raises(InputError, match="a cell wrote to a tensor of `shared`"):
        run.map(write_to_tensor, [0], torch.from_numpy(large))
    large = np.zeros(200_000)
    (result,) = run.map(write_to_array, [0], large)
    assert result is None and "read-only" in str(run.failed_cells[-1]) and not large.any()


def write_to_tensor(cell: int, tensor: torch.Tensor) -> None:
    tensor[3] = 1


def write_to_array(cell: int, array: np.ndarray) -> None:
    array[3] = 1
