"""Moonshine's encoder in torch against the file it was read from, run by onnxruntime."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.common.audio.judges.words import MoonshineJudge, SphinxJudge, text, tokens
from jobs.common.audio.networks.pretrained import moonshine, onnxruntime_file
from jobs.common.data.packages import MOONSHINE
from service.errors import FieldError, InputError
from tests.jobs.common.audio.weights import beckett, slope
from tests.jobs.common.fetched import needs

pytestmark = needs(MOONSHINE)


@pytest.fixture(scope="module")
def judge() -> MoonshineJudge:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return MoonshineJudge()


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def features_of(network: moonshine.MoonshineEncoder, sound: Tensor) -> np.ndarray:
    """(1, frames, 288), as the decoder takes them."""
    with torch.no_grad():
        features: np.ndarray = network.activations(sound[None], ["output"])["output"].transpose(1, 2).numpy()
    return np.ascontiguousarray(features)


def in_eight_bits(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """What DynamicQuantizeLinear of ONNX makes of the inputs of a product: whole steps of their range with 0."""
    least, most = inputs[0].min().clamp(max=0), inputs[0].max().clamp(min=0)
    scale = (most - least) / 255
    zero = (-least / scale).round().clamp(0, 255)
    steps = (inputs[0] / scale).round() + zero
    return ((steps.clamp(0, 255) - zero) * scale,)


def test_the_encoder_is_that_of_the_file(judge: MoonshineJudge) -> None:
    """Its products are in 8 bits, whose steps depend on what goes in: that is all of the difference."""
    network, sound = moonshine.load(), beckett()
    assert cosine(features_of(network, sound), judge.features(sound)) >= 0.999
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(in_eight_bits)
    half_second = sound[20_000:28_000]  # in a longer one some step is rounded the other way, and all after it
    assert cosine(features_of(network, half_second), judge.features(half_second)) >= 0.99999


def test_the_words_are_the_same(judge: MoonshineJudge) -> None:
    sound = beckett()
    words = "ever tried ever failed no matter try again fail again fail better"
    for features in (judge.features(sound), features_of(moonshine.load(), sound)):
        said = judge.words(features, len(sound) / 16_000)
        assert "".join(each for each in said.lower() if each.isalpha() or each == " ") == words


def test_gradients_reach_the_sound() -> None:
    network, sound = moonshine.load(), beckett()[20_000:22_000]
    for layer in ("conv1", "block1", "block6", "output"):
        analytic, numeric = slope(network, layer, sound)
        assert analytic == pytest.approx(numeric, rel=1e-4) and analytic != 0


def test_layers_are_listed_and_answer_as_channels_and_frames() -> None:
    network = moonshine.load()
    assert network.layers == ("conv1", "conv2", "conv3", *(f"block{index}" for index in range(1, 7)), "output")
    with torch.no_grad():
        answers = network.activations(torch.zeros(2, moonshine.SHORTEST), network.layers)
    assert {name: tuple(each.shape) for name, each in answers.items()} == {
        **{"conv1": (2, 288, 13), "conv2": (2, 576, 3), "conv3": (2, 288, 1)},
        **{name: (2, 288, 1) for name in network.layers[3:]},
    }


def test_a_sound_that_is_too_short(judge: MoonshineJudge) -> None:
    with pytest.raises(FieldError, match="sound must have at least 895 samples, a frame of Moonshine; it is 894"):
        judge.transcription(torch.zeros(894))


def test_silence_has_no_words(judge: MoonshineJudge) -> None:
    assert len(judge.transcription(torch.zeros(16_000)).split()) <= 1


def test_tokens_of_one_and_two_bytes_of_length() -> None:
    long = bytes(range(200)) + b"x" * 100
    data = bytes([2]) + b"ab" + bytes([0]) + bytes([128 + 300 % 128, 300 // 128]) + long
    assert tokens(data) == [b"ab", b"", long]
    assert text(["▁to".encode(), b"day", "▁it".encode()]) == "today it"


def test_sphinx_hears_words() -> None:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    said = SphinxJudge().transcription(beckett()[:48_000])
    assert "ever" in said.split() or "try" in said, said


def table_of(file: Path) -> Any:
    """The graph of a file by onnxruntime's own classes."""
    fbs = pytest.importorskip("onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession")
    return fbs.InferenceSession.GetRootAs(bytearray(file.read_bytes()), 0).Model().Graph()


def test_the_reader_reads_what_onnxruntime_reads() -> None:
    path = MOONSHINE.path("encoder_model.ort")
    graph, read = table_of(path), onnxruntime_file.read(path)
    assert graph.InitializersLength() == len(read.constants) and graph.NodesLength() == len(read.operations)
    for index in range(graph.InitializersLength()):
        theirs = graph.Initializers(index)
        ours = read.constants[theirs.Name().decode()]
        assert ours.tobytes() == theirs.RawDataAsNumpy().tobytes()
        assert list(ours.shape) == ([] if theirs.DimsIsNone() else theirs.DimsAsNumpy().tolist())


def damaged() -> Iterator[bytes]:
    data = MOONSHINE.path("encoder_model.ort").read_bytes()
    yield data[:100]
    yield data[: len(data) // 2]
    yield b"\xff\xff\xff\x7f" + data[4:]
    places = np.random.default_rng(0).integers(8, 4000, 20)
    for place in places.tolist():
        yield data[:place] + b"\xff\xff\xff\xff" + data[place + 4 : 1_000_000]


def test_damaged_files(tmp_path: Path) -> None:
    """Each ends in a sentence, whatever offset is wrong."""
    path = tmp_path / "network.ort"
    for data in damaged():
        path.write_bytes(data)
        with pytest.raises(InputError, match="network.ort is damaged"):
            onnxruntime_file.read(path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(InputError, match="must be a network of onnxruntime"):
        onnxruntime_file.read(path)
