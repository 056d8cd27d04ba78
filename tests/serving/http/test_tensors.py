"""Tensors on the wire: what tritonclient writes is read as it was, and nothing else is taken for a tensor."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.utils import np_to_triton_dtype

from service.errors import InputError
from serving.http.tensors import DATATYPES, as_float, check_shape, datatype_of, dtype_of, from_json, from_raw, to_raw

SHAPES = arrays.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5)


@st.composite
def finite_arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(sorted(DATATYPES.values(), key=str)))
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return draw(arrays.arrays(dtype, SHAPES, elements=elements))


@given(finite_arrays())
def test_json_round_trip(array: np.ndarray) -> None:
    """Flat or nested JSON gives back the same values, dtype and shape."""
    for data in (array.ravel().tolist(), array.tolist()):
        parsed = from_json("x", json.loads(json.dumps(data)), datatype_of(array), array.shape)
        np.testing.assert_array_equal(parsed, array)
        assert parsed.dtype == array.dtype and parsed.shape == array.shape


@given(finite_arrays(), st.integers(0, 7))
def test_raw_round_trip(array: np.ndarray, offset: int) -> None:
    """Raw bytes are read at any place of the body, aligned or not."""
    body = b"#" * offset + to_raw(array)
    parsed = from_raw("x", memoryview(body)[offset:], datatype_of(array), array.shape)
    np.testing.assert_array_equal(parsed, array)
    assert parsed.dtype == array.dtype and parsed.shape == array.shape


@given(finite_arrays())
def test_raw_bytes_are_those_of_tritonclient(array: np.ndarray) -> None:
    assert to_raw(array) == array.tobytes()
    assert np_to_triton_dtype(array.dtype) == datatype_of(array)


def test_big_endian_arrays_are_sent_little_endian() -> None:
    array = np.array([1, 2, 3], "<i4").astype(">i4")
    assert to_raw(array) == b"\1\0\0\0\2\0\0\0\3\0\0\0"


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "sentence"),
    [
        ([1.0, 2.0], "FP32", [3], "shape [3] needs 3 elements; data has 2"),
        ([1.0], "FP32", [10**12, 10**12], "needs 1000000000000000000000000 elements"),
        ([[1.0], [2.0, 3.0]], "FP32", [3], "ragged"),
        ([[1.0], 2.0], "FP32", [2], "ragged"),
        (["1"], "FP32", [1], "FP32 must be numbers, not str"),
        ([0] * 1000 + ["x" * 100_000], "INT8", [1001], "must be whole numbers, not str"),
        ([None], "FP32", [1], "not NoneType"),
        ([True], "INT8", [1], "must be whole numbers, not bool"),
        ([1.0], "INT8", [1], "must be whole numbers, not float"),
        ([1], "BOOL", [1], "must be true or false, not int"),
        ([300], "UINT8", [1], "300 is out of range of UINT8"),
        ([-1], "UINT64", [1], "-1 is out of range of UINT64"),
        ([10**400], "FP64", [1], "out of range of FP64"),
        ([1e39, 0.0], "FP32", [2], "NaN or an infinite number at [0]"),
        ("1.0", "FP32", [1], "data must be a list"),
        ([[[[[[[[[1]]]]]]]]], "INT8", [1], "nested more than 8 deep"),
    ],
)
def test_what_is_not_a_tensor_is_refused(data: Any, datatype: str, shape: list[int], sentence: str) -> None:
    with pytest.raises(InputError, match="input 'x'") as raised:
        from_json("x", data, datatype, tuple(shape))
    assert sentence in str(raised.value)


@pytest.mark.parametrize("shape", [None, 3, "1,2", [1.0], [-1], [True], [], [1] * 9, [[1]], [10**4000]])
def test_what_is_not_a_shape_is_refused(shape: Any) -> None:
    with pytest.raises(InputError, match="input 'x': shape"):
        check_shape("x", shape)


@pytest.mark.parametrize(
    ("datatype", "sentence"),
    [
        ("BYTES", "is not supported"),
        ("fp32", "unknown"),
        ("INT33", "did you mean 'INT32'?"),
        (None, "unknown"),
    ],
)
def test_what_is_not_a_datatype_is_refused(datatype: Any, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        dtype_of("x", datatype)
    assert sentence in str(raised.value)


def test_raw_nan_and_infinity_are_refused_with_their_place() -> None:
    raw = np.array([[0, np.nan], [np.inf, 0]], "<f4").tobytes()
    with pytest.raises(InputError, match=r"infinite number at \[0, 1\]"):
        from_raw("x", memoryview(raw), "FP32", (2, 2))


def test_raw_bytes_that_do_not_fill_the_shape_are_refused() -> None:
    with pytest.raises(InputError, match="needs 2 elements; 7 bytes were sent"):
        from_raw("x", memoryview(b"1234567"), "FP32", (2,))
    with pytest.raises(InputError, match="a BOOL is one byte, 0 or 1"):
        from_raw("x", memoryview(b"\0\2"), "BOOL", (2,))


def test_bf16_is_the_upper_half_of_a_float32() -> None:
    """As torch has it."""
    values = torch.tensor([[0.5, -3.14159, 1e30], [0.0, 65504.0, -1e-30]], dtype=torch.bfloat16)
    raw = values.view(torch.int16).numpy().astype("<i2").tobytes()
    array = from_raw("x", memoryview(raw), "BF16", (2, 3))
    np.testing.assert_array_equal(array, values.float().numpy())
    with pytest.raises(InputError, match="needs 6 elements"):
        from_raw("x", memoryview(raw[:-2]), "BF16", (2, 3))
    with pytest.raises(InputError, match="NaN or an infinite number at .0, 1."):
        from_raw("x", memoryview(b"\0\0\x80\x7f"), "BF16", (1, 2))
    assert from_json("x", [0.5], "BF16", (1,)).dtype == np.float32


def test_floats_of_another_width_are_read_as_those_of_the_model() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        array = as_float("x", np.array([0.5, -2.0], dtype), np.dtype("<f4"))
        assert array.dtype == np.float32 and array.tolist() == [0.5, -2.0]
    with pytest.raises(InputError, match="input 'x': holds a number that is out of range of FP32 at .1."):
        as_float("x", np.array([0.0, 1e39]), np.dtype("<f4"))
