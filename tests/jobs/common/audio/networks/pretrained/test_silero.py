"""Silero VAD in torch: against the same layers one chunk at a time, and against another file of the package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.audio.networks.pretrained import onnxruntime_file, silero
from jobs.common.data.packages import MOONSHINE, SILERO_VAD
from tests.jobs.common.audio.weights import beckett, slope, tone
from tests.jobs.common.fetched import needs

pytestmark = needs(SILERO_VAD)
ONNX = "silero_vad_16k_op15.onnx"


def probabilities(network: silero.SileroVad, sound: Tensor) -> np.ndarray:
    with torch.no_grad():
        values: np.ndarray = network.activations(sound[None], ["output"])["output"][0, 0].sigmoid().numpy()
    return values


def by_onnxruntime(sound: Tensor) -> np.ndarray:
    """One chunk after the other, with the state and the context that the file asks for."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(str(SILERO_VAD.path(ONNX)), providers=["CPUExecutionProvider"])
    state, context, answers = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for chunk in sound[: len(sound) // 512 * 512].reshape(-1, 1, 512).numpy():
        chunk = np.concatenate([context, chunk], 1)
        answer, state = session.run(None, {"input": chunk, "state": state, "sr": np.array(16_000)})
        context = chunk[:, -64:]
        answers.append(answer[0, 0])
    return np.array(answers)


@needs(MOONSHINE)
def test_speech_is_heard_where_it_is() -> None:
    """The package's other file has other weights: they agree about real speech."""
    sound = beckett()
    ours, theirs = probabilities(silero.load(), sound), by_onnxruntime(sound)
    assert np.mean((ours > 0.5) == (theirs > 0.5)) > 0.97 and np.corrcoef(ours, theirs)[0, 1] > 0.98
    assert 0.2 < np.mean(ours > 0.5) < 0.8


def test_the_layers_with_the_weights_of_the_other_file(tmp_path: Path) -> None:
    """Then the answers are equal. onnxruntime writes the file anew in the format that the reader reads."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "vad.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(SILERO_VAD.path(ONNX)), options, providers=["CPUExecutionProvider"])
    constants = onnxruntime_file.read(tmp_path / "vad.ort").constants
    network = silero.SileroVad().eval()
    names = {"spectrum.convolution": "stft.forward_basis_buffer", "memory.cell": "decoder.rnn"}
    names |= {f"conv{index}.convolution": f"encoder.{index - 1}.reparam_conv" for index in (1, 2, 3, 4)}
    names |= {"output.convolution": "decoder.decoder.2"}

    def theirs(name: str, tensor: Tensor) -> Tensor:
        layer, _, kind = name.removeprefix("stages.").rpartition(".")
        full = f"model.{names[layer]}" + ("" if "stft" in names[layer] else f".{kind.removesuffix('_l0')}")
        return torch.tensor(constants[full]).reshape(tensor.shape)

    network.load_state_dict({name: theirs(name, tensor) for name, tensor in network.state_dict().items()})
    sound = torch.cat((tone(150, 0.3), 0.1 * torch.randn(4800), torch.zeros(3200)))
    assert probabilities(network, sound) == pytest.approx(by_onnxruntime(sound), abs=1e-4)


def test_a_batch_is_each_of_its_sounds() -> None:
    """In double precision: activations reach 85, and a processor sums a batch in another order than one sound."""
    network = silero.load().double()
    sounds = torch.stack([tone(200, 0.2), tone(900, 0.2), torch.zeros(3200)]).double()
    with torch.no_grad():
        together = network.activations(sounds, network.layers)
        for place, sound in enumerate(sounds):
            alone = network.activations(sound[None], network.layers)
            for layer in network.layers:
                torch.testing.assert_close(together[layer][place], alone[layer][0], atol=1e-12, rtol=1e-10)


def test_the_memory_is_that_of_the_cell_one_chunk_at_a_time() -> None:
    """A plain loop over chunks: convolutions of one dimension and a cell, as the package writes it."""
    network, sound = silero.load(), tone(150, 0.3) + 0.05 * torch.randn(4800)
    state = network.state_dict()
    cell = torch.nn.LSTMCell(128, 128)
    cell.load_state_dict({name: state[f"stages.memory.cell.{name}_l0"] for name in cell.state_dict()})
    memory, context, answers = None, torch.zeros(64), []
    with torch.no_grad():
        for chunk in sound[:4608].split(512):
            heard = torch.cat((context, chunk))
            padded = functional.pad(heard[None, None], (0, 64), "reflect")
            spectrum = functional.conv1d(padded, state["stages.spectrum.convolution.weight"][:, :, 0], stride=128)
            features = (spectrum[:, :129] ** 2 + spectrum[:, 129:] ** 2).sqrt()
            for index, stride in enumerate((1, 2, 2, 1), start=1):
                kernel = state[f"stages.conv{index}.convolution.weight"][:, :, 0]
                bias = state[f"stages.conv{index}.convolution.bias"]
                features = functional.conv1d(features, kernel, bias, stride, 1).relu()
            memory = cell(features[:, :, 0], memory)
            weight, bias = (state[f"stages.output.convolution.{name}"] for name in ("weight", "bias"))
            answers.append(functional.linear(memory[0].relu(), weight[:, :, 0, 0], bias).sigmoid().item())
            context = heard[-64:]
    assert probabilities(network, sound) == pytest.approx(answers, abs=1e-5)


def test_gradients_reach_the_sound() -> None:
    network = silero.load()
    for layer in network.layers:
        analytic, numeric = slope(network, layer, tone(180, 0.1) + 0.01 * torch.randn(1600))
        assert analytic == pytest.approx(numeric, rel=1e-3) and analytic != 0
