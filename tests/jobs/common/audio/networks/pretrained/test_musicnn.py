"""musicnn in torch: the reader of its checkpoint, and what it hears in sounds that are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.common.audio.networks.pretrained import musicnn, tensorflow_file
from jobs.common.data.packages import MOONSHINE, MUSICNN
from service.errors import InputError
from tests.jobs.common.audio.weights import beckett, slope
from tests.jobs.common.fetched import needs

pytestmark = needs(MUSICNN)
SAMPLES = 47_872  # 187 frames


def tags(sound: Tensor, count: int) -> list[str]:
    """The likeliest ones."""
    network = musicnn.load()
    with torch.no_grad():
        logits = network(sound[None])[0]
    return [network.classes[place] for place in logits.argsort(descending=True)[:count].tolist()]


@needs(MOONSHINE)
def test_a_man_who_speaks() -> None:
    heard = tags(beckett(), 8)
    assert {"male", "male vocal", "man", "male voice"} & set(heard[:5]) and "female" not in heard


def test_a_drum_machine() -> None:
    """Noise bursts and falling tones, twice a second."""
    generator = torch.Generator().manual_seed(0)
    beat = torch.arange(8000) / 16_000
    kick = torch.sin(2 * torch.pi * 50 * beat) * torch.exp(-beat * 12)
    hat = 0.3 * torch.randn(8000, generator=generator) * torch.exp(-((beat - 0.25).clamp(min=0)) * 60) * (beat > 0.25)
    heard = tags(0.5 * (kick + hat).repeat(6)[:SAMPLES], 8)
    assert len({"techno", "electronic", "beat", "drums", "dance", "beats", "fast"} & set(heard)) >= 3, heard


def test_the_pieces_are_those_of_the_paper() -> None:
    """3 seconds are one answer, and the last layer is a matrix of 256 x 50 there."""
    network = musicnn.load()
    with torch.no_grad():
        answers = network.activations(0.1 * torch.randn(1, SAMPLES), network.layers)
    assert answers["mel"].shape == (1, 96, 188) and answers["output"].shape == (1, 50, 1)
    assert sum(each.numel() for name, each in network.named_parameters() if "dense" in name) == 256 * 50 + 50


def test_the_spectrogram_is_librosas_but_for_half_precision() -> None:
    """A plain transform of one frame, with Slaney's filters written out by torchaudio's own function."""
    from torchaudio.functional import melscale_fbanks

    sound = 0.1 * torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frame = sound[20 * 256 - 256 : 20 * 256 + 256] * torch.hann_window(512, dtype=torch.float64)
    powers = torch.fft.rfft(frame).abs().square()
    filters = melscale_fbanks(257, 0, 8000, 96, 16_000, norm="slaney", mel_scale="slaney").double()
    with torch.no_grad():
        mel = musicnn.load().activations(sound.float()[None], ["mel"])["mel"][0, :, 20]
    torch.testing.assert_close(mel.double(), (1 + 10_000 * powers @ filters).log10(), atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_sound() -> None:
    network = musicnn.load()
    for layer in ("mel", "conv3"):
        analytic, numeric = slope(network, layer, 0.1 * torch.randn(SAMPLES))
        assert analytic == pytest.approx(numeric, rel=1e-3) and analytic != 0


def test_the_checkpoint_is_read_whole() -> None:
    numbers = tensorflow_file.read(MUSICNN.path(".index"), MUSICNN.path(".data-00000-of-00001"))
    weights = {name: each.size for name, each in numbers.items() if "Adam" not in name and "power" not in name}
    assert sum(weights.values()) == 1 * 9 * 128 + 4 * 9 * 128 * 128 + 5 * 128 + 4 * (1 + 5 * 128) + 256 * 50 + 50
    variances = [each for name, each in numbers.items() if name.endswith("moving_variance")]
    assert len(variances) == 6 and all((each > 0).all() for each in variances)


@pytest.mark.parametrize("part", ["index", "data"])
def test_damaged_checkpoints(tmp_path: Path, part: str) -> None:
    index, data = MUSICNN.path(".index").read_bytes(), MUSICNN.path(".data-00000-of-00001").read_bytes()
    paths = tmp_path / "index", tmp_path / "data"
    paths[0].write_bytes(index)
    paths[1].write_bytes(data[:1_000_000] if part == "data" else data)
    if part == "data":
        with pytest.raises(InputError, match="index and data are damaged: .* is not in the file of numbers"):
            tensorflow_file.read(*paths)
        return
    paths[0].write_bytes(index[:-1])
    with pytest.raises(InputError, match="must be the table of a TensorFlow checkpoint"):
        tensorflow_file.read(*paths)
    generator = np.random.default_rng(0)
    for _ in range(200):  # whatever byte is wrong, it is read or refused
        place = int(generator.integers(len(index) - 8))
        paths[0].write_bytes(index[:place] + bytes([int(generator.integers(256))]) + index[place + 1 :])
        try:
            tensorflow_file.read(*paths)
        except InputError as error:
            assert "damaged" in str(error)
