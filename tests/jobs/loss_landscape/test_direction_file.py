"""Files of directions."""

import pytest
import torch

from jobs.common.models.directions import random_direction
from jobs.common.models.weights import digest, tensors
from jobs.loss_landscape.files import direction_file
from service.errors import InputError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_file_of_directions_is_read_back_and_only_for_its_model(make_network):
    weights = tensors(make_network("digits_net"))
    axes = [random_direction(weights, "filter", "biasbn", stream(seed)) for seed in (0, 1)]
    data = direction_file.encode(axes, weights, "random")
    for axis, read in zip(axes, direction_file.decode(data, weights, "the file"), strict=True):
        assert all(torch.equal(axis[name], read[name]) for name in weights)
    other = {**weights, "network.0.weight": weights["network.0.weight"] + 1e-6}
    assert digest(other) != digest(weights)
    with pytest.raises(InputError, match="the file is stale"):
        direction_file.decode(data, other, "the file")


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02pickle", b"\xff" * 40, b"\x02" + bytes(7) + b"{}", b"\x09" + bytes(7) + b"[1, 2, 3]"]
)
def test_files_that_are_something_else_are_refused(data):
    with pytest.raises(InputError, match="^the file "):
        direction_file.decode(data, {"w": torch.ones(1)}, "the file")
