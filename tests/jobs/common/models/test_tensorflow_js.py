"""Graphs of TensorFlow.js: each operation against its definition, written out; and files that are not what they say."""

import base64
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.common.models import tensorflow_js_file
from jobs.common.models.tensorflow_js_graph import TensorFlowGraph
from service.errors import InputError

Constants = dict[str, np.ndarray]
STREAM = np.random.default_rng(0)
IMAGE = STREAM.normal(size=(1, 7, 6, 3)).astype(np.float32)


def node(name: str, op: str, *inputs: str, **attributes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def window(stride: int, padding: str, *fused: str) -> dict[str, Any]:
    """What a convolution says of itself."""
    parts: dict[str, Any] = {
        "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
        "padding": {"s": text(padding)},
        "data_format": {"s": text("NHWC")},
    }
    return parts | ({"fused_ops": {"list": {"s": [text(part) for part in fused]}}} if fused else {})


def written(folder: Path, nodes: list[dict[str, Any]], constants: Constants, half: bool = False) -> tuple[Path, Path]:
    """The two files. half: fractions of 16 bits."""
    listed, content = [], b""
    for name, values in constants.items():
        nodes = [*nodes, node(name, "Const")]
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "dtype": str(values.dtype)}
        if half and values.dtype == np.float32:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
            values = values.astype(np.float16)
        content += values.tobytes()
        listed.append(entry)
    graph = {
        "format": "graph-model",
        "modelTopology": {"node": [node("image", "Placeholder"), *nodes]},
        "weightsManifest": [{"paths": ["net.bin"], "weights": listed}],
    }
    (folder / "net.json").write_text(json.dumps(graph))
    (folder / "net.bin").write_bytes(content)
    return folder / "net.json", folder / "net.bin"


def graph(
    folder: Path, nodes: list[dict[str, Any]], constants: Constants, shape: tuple[int, ...] = (7, 6, 3)
) -> TensorFlowGraph:
    return TensorFlowGraph(tensorflow_js_file.read(*written(folder, nodes, constants)), "image", ["out"], shape)


def computed(folder: Path, nodes: list[dict[str, Any]], constants: Constants) -> np.ndarray:
    (output,) = graph(folder, nodes, constants)(torch.from_numpy(IMAGE))
    return output.detach().numpy()


def same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's guide to padding: how many come out, and how many zeros are before."""
    out = -(-length // stride)
    return out, max((out - 1) * stride + kernel - length, 0) // 2


def convolved(kernel: np.ndarray, stride: int, is_same: bool) -> np.ndarray:
    """The sum, place by place. kernel: (height, width, in, out)."""
    _, height, width, _ = IMAGE.shape
    (down, top), (across, left) = (
        same(length, size, stride) if is_same else ((length - size) // stride + 1, 0)
        for length, size in ((height, kernel.shape[0]), (width, kernel.shape[1]))
    )
    output = np.zeros((1, down, across, kernel.shape[3]))
    for y, x, row, column in product(range(down), range(across), range(kernel.shape[0]), range(kernel.shape[1])):
        v, u = y * stride + row - top, x * stride + column - left
        if 0 <= v < height and 0 <= u < width:
            output[0, y, x] += IMAGE[0, v, u] @ kernel[row, column]
    return output


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolutions(tmp_path: Path, size: int, stride: int, padding: str) -> None:
    kernel = STREAM.normal(size=(size, size, 3, 4)).astype(np.float32)
    output = computed(
        tmp_path, [node("out", "Conv2D", "image", "kernel", **window(stride, padding))], {"kernel": kernel}
    )
    np.testing.assert_allclose(output, convolved(kernel, stride, padding == "SAME"), atol=1e-5)


@pytest.mark.parametrize("rectified", [False, True])
def test_what_is_fused_with_a_convolution(tmp_path: Path, rectified: bool) -> None:
    kernel, bias = STREAM.normal(size=(3, 3, 3, 4)).astype(np.float32), STREAM.normal(size=4).astype(np.float32)
    fused = window(1, "SAME", "BiasAdd", "Relu") if rectified else window(1, "SAME", "BiasAdd")
    nodes = [node("out", "_FusedConv2D", "image", "kernel", "bias", **fused)]
    expected = convolved(kernel, 1, True) + bias
    np.testing.assert_allclose(
        computed(tmp_path, nodes, {"kernel": kernel, "bias": bias}),
        expected.clip(0) if rectified else expected,
        atol=1e-5,
    )


def test_a_depthwise_convolution_is_one_of_each_channel(tmp_path: Path) -> None:
    kernel = STREAM.normal(size=(3, 3, 3, 2)).astype(np.float32)  # two kernels for each of three channels
    whole = np.zeros((3, 3, 3, 6), np.float32)
    for channel, number in product(range(3), range(2)):
        whole[:, :, channel, 2 * channel + number] = kernel[:, :, channel, number]
    nodes = [node("out", "DepthwiseConv2dNative", "image", "kernel", **window(2, "SAME"))]
    np.testing.assert_allclose(computed(tmp_path, nodes, {"kernel": kernel}), convolved(whole, 2, True), atol=1e-5)


@pytest.mark.parametrize("half_pixels", [False, True])
@pytest.mark.parametrize("size", [(14, 12), (3, 4), (7, 6), (10, 1)])
def test_resizing(tmp_path: Path, size: tuple[int, int], half_pixels: bool) -> None:
    nodes = [node("out", "ResizeBilinear", "image", "size", half_pixel_centers={"b": half_pixels})]
    output = computed(tmp_path, nodes, {"size": np.array(size, np.int32)})
    middle = 0.5 if half_pixels else 0.0
    expected = np.zeros((1, *size, 3))
    for y, x in product(*map(range, size)):
        v, u = ((at + middle) * IMAGE.shape[1 + axis] / size[axis] - middle for axis, at in enumerate((y, x)))
        v, u = max(v, 0), max(u, 0)
        for (row, share), (column, part) in product(*([(int(p), 1 - p % 1), (int(p) + 1, p % 1)] for p in (v, u))):
            expected[0, y, x] += share * part * IMAGE[0, min(row, 6), min(column, 5)]
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("last", "constants", "expected"),
    [
        (node("out", "Relu6", "six"), {}, (6 * IMAGE).clip(0, 6)),
        (node("out", "LeakyRelu", "image", alpha={"f": 0.1}), {}, np.where(IMAGE > 0, IMAGE, 0.1 * IMAGE)),
        (node("out", "Sigmoid", "image"), {}, 1 / (1 + np.exp(-IMAGE))),
        (node("out", "Mul", "image", "six"), {}, 6 * IMAGE**2),
        (node("out", "Add", "sides", "image"), {"sides": np.array([1, 2, 3], np.float32)}, IMAGE + [1, 2, 3]),
        (node("out", "Transpose", "image", "p"), {"p": np.array([0, 3, 1, 2], np.int32)}, IMAGE.transpose(0, 3, 1, 2)),
        (
            node("out", "ConcatV2", "image", "six", "axis"),
            {"axis": np.array(3, np.int32)},
            np.concatenate([IMAGE, 6 * IMAGE], 3),
        ),
        (
            node("out", "Mean", "image", "axes", keep_dims={"b": True}),
            {"axes": np.array([1, 2], np.int32)},
            IMAGE.mean((1, 2), keepdims=True),
        ),
        (
            node("out", "PadV2", "image", "by", "low"),
            {"by": np.array([[0, 0], [1, 2], [0, 3], [0, 0]], np.int32), "low": np.array(-np.inf, np.float32)},
            np.pad(IMAGE, [(0, 0), (1, 2), (0, 3), (0, 0)], constant_values=-np.inf),
        ),
        (
            node("out", "MaxPool", "image", ksize={"list": {"i": ["1", "2", "3", "1"]}}, **window(1, "VALID")),
            {},
            np.lib.stride_tricks.sliding_window_view(IMAGE, (2, 3), (1, 2)).max((4, 5)),
        ),
    ],
    ids=lambda value: value["op"] if isinstance(value, dict) and "op" in value else "",
)
def test_other_operations(tmp_path: Path, last: dict[str, Any], constants: Constants, expected: np.ndarray) -> None:
    nodes = [node("six", "Mul", "number", "image"), last]  # some are in the file before what they take
    output = computed(tmp_path, nodes[::-1], {"number": np.array(6, np.float32), **constants})
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_numbers_of_16_bits_and_gradients(tmp_path: Path) -> None:
    kernel = STREAM.normal(size=(3, 3, 3, 2)).astype(np.float32)
    nodes = [
        node("a", "Conv2D", "image", "kernel", **window(2, "SAME")),
        node("b", "ResizeBilinear", "a", "size"),
        node("out", "Sigmoid", "b"),
    ]
    files = written(tmp_path, nodes, {"kernel": kernel, "size": np.array([5, 7], np.int32)}, half=True)
    network = TensorFlowGraph(tensorflow_js_file.read(*files), "image", ["out", "a"], (7, 6, 3)).double()
    halved = kernel.astype(np.float16).astype(np.float32)
    images = torch.from_numpy(IMAGE).double()
    np.testing.assert_allclose(network(images)[1].detach(), convolved(halved, 2, True), atol=1e-6)
    assert torch.autograd.gradcheck(lambda x: network(x)[0], images.requires_grad_())
    batch = torch.cat([images, 2 * images])
    assert torch.allclose(network(batch)[0][1:], network(2 * images)[0])


SQUARE = np.ones((3, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("nodes", "constants", "problem"),
    [
        (
            [node("out", "PyFunc", "image")],
            {},
            "node 'out' of net.json is the operation 'PyFunc', which is not known here",
        ),
        ([node("other", "Relu", "image")], {}, "net.json must have a node 'out'; it has none"),
        ([node("out", "Relu", "nothing")], {}, "net.json must have a node 'nothing'; it has none"),
        ([node("out", "Add", "a", "image"), node("a", "Relu", "out")], {}, "go round in a circle: "),
        ([node("out", "Relu")], {}, "must take 1 that are computed"),
        ([node("out", "Relu", "k")], {"k": SQUARE}, "must take 1 that are computed"),
        ([node("out", "Relu", "image"), node("out", "Relu6", "image")], {}, "must have names of their own"),
        ([node("out", "Relu", "image"), node("k", "Const")], {}, "net.bin must hold the constant 'k'; it does not"),
        (
            [node("out", "Conv2D", "image", "k", **window(1, "SAME"))],
            {"k": SQUARE[0]},
            "must have a kernel of four sides",
        ),
        (
            [node("out", "Conv2D", "image", "k", **window(99, "SAME"))],
            {"k": SQUARE},
            "two numbers of 1 to 16, and 1 as strides",
        ),
        ([node("out", "Conv2D", "image", "k", **window(1, "AROUND"))], {"k": SQUARE}, "the padding AROUND"),
        ([node("out", "Conv2D", "image", "k")], {"k": SQUARE}, "has the padding  and the parts"),
        (
            [node("out", "Conv2D", "image", "k", **window(1, "SAME"))],
            {"k": SQUARE[:, :, :2]},
            "does not fit together after node",
        ),
        (
            [node("out", "Conv2D", "image", "k", **window(1, "SAME"))],
            {"k": SQUARE * np.nan},
            "must have finite fractions",
        ),
        ([node("out", "Conv2D", "image", "k", padding={"s": 3})], {"k": SQUARE}, "has a text that cannot be read"),
        (
            [node("out", "ResizeBilinear", "image", "k")],
            {"k": np.array([2**30, 2], np.int32)},
            "two sides of 1 to 4096",
        ),
        ([node("out", "Pad", "image", "k")], {"k": np.full((4, 2), -1, np.int32)}, "must be padded by an amount"),
        ([node("out", "Transpose", "image", "k")], {"k": np.array([0, 0, 1, 2], np.int32)}, "does not fit together"),
        ([node("out", "Mean", "image", "k")], {"k": np.array([9], np.int32)}, "does not fit together"),
        ([node("out", "LeakyRelu", "image", alpha={"f": "0.1"})], {}, "must have a number as alpha"),
    ],
    ids=range(20),
)
def test_graphs_that_are_refused(
    tmp_path: Path, nodes: list[dict[str, Any]], constants: Constants, problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as refused:
        graph(tmp_path, nodes, constants)
    assert "\n" not in refused.value.message


def test_a_graph_that_grows_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    """Each node is twice as large as the one before it: the last one would have 2^46 values."""
    names = ["image", *(f"n{index}" for index in range(40))]
    doubled = [node(name, "ConcatV2", before, before, "axis") for before, name in zip(names, names[1:], strict=False)]
    nodes = [*doubled, node("out", "Relu", names[-1])]
    with pytest.raises(InputError, match="must have at most 67,108,864 values"):
        graph(tmp_path, nodes, {"axis": np.array(3, np.int32)})


def change(folder: Path, name: str, value: Any) -> tuple[Path, Path]:
    """Good files, but for one part of their list of numbers."""
    files = written(folder, [node("out", "Relu", "image")], {"k": np.zeros((2, 3), np.float32)})
    content = json.loads(files[0].read_text())
    content["weightsManifest"][0]["weights"][0][name] = value
    files[0].write_text(json.dumps(content))
    return files


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("shape", [2, 4], "net.bin must have 32 bytes, as its text says; it has 24"),
        ("shape", [2**31 - 1] * 8, "net.bin must have [0-9,]+ bytes"),
        ("shape", [2**40, 0], "no graph of TensorFlow.js: .*less than"),
        ("shape", [-2, -3], "no graph of TensorFlow.js: .*greater than or equal to 0"),
        ("shape", "23", "no graph of TensorFlow.js"),
        ("dtype", "string", "no graph of TensorFlow.js"),
        ("quantization", {"dtype": "uint8", "min": 0, "scale": 1}, "no graph of TensorFlow.js: .*'float16'"),
    ],
)
def test_lists_of_numbers_that_are_refused(tmp_path: Path, name: str, value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        tensorflow_js_file.read(*change(tmp_path, name, value))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": "layers-model"}'], ids=range(6)
)
def test_texts_that_are_no_graphs(tmp_path: Path, content: bytes) -> None:
    files = written(tmp_path, [], {})
    files[0].write_bytes(content)
    with pytest.raises(InputError, match="net.json is no graph of TensorFlow.js"):
        tensorflow_js_file.read(*files)


def test_a_text_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_js_file, "MOST_TEXT", 10)
    with pytest.raises(InputError, match="net.json must have at most 10 bytes"):
        tensorflow_js_file.read(*written(tmp_path, [], {}))
