"""Checkpoints: whatever training holds comes back bit for bit, and nothing that a stranger sends is run."""

import pickle
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.errors import StoreError
from service.execution import checkpoints

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(STATES)
def test_plain_values_come_back(state: Any) -> None:
    assert repr(checkpoints.decode(checkpoints.encode(state))) == repr(state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_come_back(dtype: torch.dtype) -> None:
    whole = torch.arange(24).to(dtype).view(2, 3, 4)
    state = {
        "whole": whole,
        "view": whole[:, 1],
        "turned": whole.transpose(0, 2),
        "none": whole[:0],
        "one": whole[0, 0, 1],
    }
    back = checkpoints.decode(checkpoints.encode(state))
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor) and back[name].dtype == dtype and back[name].shape == tensor.shape


def test_a_number_is_a_file_of_safetensors() -> None:
    data = checkpoints.encode(1.5)
    assert data == safetensors.torch.save({}, {"assay.tree": "1.5"}) and safetensors.torch.load(data) == {}


def test_special_numbers() -> None:
    state = {"t": torch.tensor([float("nan"), float("inf"), -0.0]), "a": np.array([1.5, np.nan]), "f": float("-inf")}
    back = checkpoints.decode(checkpoints.encode(state))
    np.testing.assert_array_equal(back["t"].numpy().view(np.int32), state["t"].numpy().view(np.int32))
    np.testing.assert_array_equal(back["a"], state["a"])
    assert isinstance(back["a"], np.ndarray) and back["f"] == float("-inf")


@pytest.mark.parametrize("size", [0, 1, 3])
def test_arrays_that_torch_does_not_take(size: int) -> None:
    whole = np.arange(2.0 * size)
    fixed = whole.copy()
    fixed.flags.writeable = False
    state = {"backwards": whole[::-1][:size], "one": whole[::-2], "fixed": fixed, "number": np.array(2.5)}
    back = checkpoints.decode(checkpoints.encode(state))
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].shape == array.shape


def test_the_state_of_training_goes_on_exactly() -> None:
    """Weights, an optimizer's moments and a generator: the next steps are the same bit for bit."""

    def steps(net: torch.nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(5, 4, generator=generator)).square().mean().backward()
            optimizer.step()

    def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer, torch.Generator]:
        net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
        return net, torch.optim.AdamW(net.parameters(), 1e-2), torch.Generator().manual_seed(1)

    net, optimizer, generator = fresh()
    steps(net, optimizer, generator)
    kept = checkpoints.encode([net.state_dict(), optimizer.state_dict(), generator.get_state()])
    steps(net, optimizer, generator)
    twin, its_optimizer, its_generator = fresh()
    weights, moments, position = checkpoints.decode(kept)
    twin.load_state_dict(weights)
    its_optimizer.load_state_dict(moments)
    its_generator.set_state(position)
    steps(twin, its_optimizer, its_generator)
    for name, value in net.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"a": [1, {2, 3}]}, r"state\.a\[1\]: a set cannot be kept"),
        ({"a": {1.5: 0}}, r"state\.a: the key 1\.5 is neither text nor a whole number"),
        ({True: 0}, "the key True is neither"),
    ],
)
def test_what_cannot_be_kept_is_named(state: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        checkpoints.encode(state)


def test_damage_is_noticed_and_a_pickle_is_not_run() -> None:
    data = checkpoints.encode({"a": torch.ones(10), "b": [1, 2]})
    hostile = [data[:-1], data[: len(data) // 2], data[:7], b"", b"\xff" * 100, pickle.dumps(_Bomb())]
    headers = [
        b'{"__metadata__": {"assay.tree": "' + b"[" * 100_000 + b'"}}',
        b'{"__metadata__": {"assay.tree": "[\\"i\\", Infinity]"}}',
        b'{"__metadata__": {"assay.tree": "5"}, "0": {"dtype": "F32", "shape": [0, 1099511627776, 1099511627776], '
        b'"data_offsets": [0, 0]}}',
    ]
    for bad in [*hostile, *[len(header).to_bytes(8, "little") + header for header in headers]]:
        with pytest.raises(StoreError, match="a checkpoint is damaged"):
            checkpoints.decode(bad)


class _Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


@given(st.binary(max_size=300))
def test_garbage_is_one_sentence(data: bytes) -> None:
    with pytest.raises(StoreError, match="a checkpoint is damaged"):
        checkpoints.decode(data)
