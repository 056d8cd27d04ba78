"""Objectives against what they say, edges against padding, ascent against what linear networks allow, vocoding."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.audio.levels import PEAK, RMS
from jobs.common.audio.mel import LogMel
from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from jobs.common.audio.networks.wrapped import WrappedNetwork
from jobs.common.audio.transformations import TransformationParams
from jobs.sonification.optimisation.ascent import AscentParams, Subject, ascend
from jobs.sonification.optimisation.edges import Inside, inside
from jobs.sonification.optimisation.objectives import (
    ChannelObjective,
    ClassObjective,
    DirectionObjective,
    LayerObjective,
    NeuronObjective,
    mean_cosine,
)
from jobs.sonification.optimisation.parameterisations import Fourier, LogMels, SoundFormat, Waveform
from jobs.sonification.optimisation.regularisation import RegularisationParams, high_share, spectral_variation
from jobs.sonification.optimisation.vocoding import VocoderParams, vocode
from service.errors import InputError
from tests.jobs.sonification.tones import RATE, deaf, network, without_mels

SAMPLES = 2000
STILL = TransformationParams(shift=0, speed=0, gain=0, noise=0)


def test_objectives_are_what_they_say() -> None:
    activations = torch.randn(3, 5, 8)
    features = torch.tensor([4, 0, 2])
    rows = [activations[row, feature] for row, feature in enumerate(features.tolist())]
    expected: dict[Any, list[Tensor]] = {
        ChannelObjective(): [row.mean() for row in rows],
        ChannelObjective(top=0.25): [row.sort().values[-2:].mean() for row in rows],
        NeuronObjective(): [row[4] for row in rows],
        DirectionObjective(): [row.mean() for row in rows],
        LayerObjective(): [(each**2).mean() for each in activations],
        ClassObjective(): [(row - torch.logsumexp(activations[place], 0)).mean() for place, row in enumerate(rows)],
    }
    for objective, values in expected.items():
        torch.testing.assert_close(objective.scores(activations, features), torch.stack(values))


@pytest.mark.parametrize("directions", [None, torch.eye(8)[[1, 0]] + 0.5])
def test_what_each_row_is_for_is_that_of_the_whole_layer(directions: Tensor | None) -> None:
    net, sounds, features = network(), 0.1 * torch.randn(3, SAMPLES), torch.tensor([1, 0, 1])
    subject = Subject(net, "conv2", torch.randn(8), 1 + torch.rand(8), inside(net, "conv2", SAMPLES), directions)
    expected = subject.activations(sounds)[torch.arange(3), features]
    torch.testing.assert_close(subject.own(sounds, features), expected, rtol=1e-5, atol=1e-5)


def test_likeness_of_copies_is_the_mean_cosine_of_their_gram_matrices() -> None:
    activations = torch.randn(6, 4, 7)  # two features, three copies each
    grams = [each @ each.T for each in activations]
    for feature, value in enumerate(mean_cosine(activations, 3)):
        these = grams[3 * feature : 3 * feature + 3]
        pairs = [(0, 1), (0, 2), (1, 2)]
        cosines = [nn.functional.cosine_similarity(these[a].flatten(), these[b].flatten(), 0) for a, b in pairs]
        torch.testing.assert_close(value, torch.stack(cosines).mean())
    assert mean_cosine(activations[:1].expand(2, -1, -1), 2).item() == pytest.approx(1)


def test_penalties_on_what_is_known() -> None:
    steps = torch.zeros(1, 4, 5)
    steps[:, 2:] = 3.0
    assert spectral_variation(steps).item() == pytest.approx(1.0)  # one of three steps in frequency, none in time
    at = torch.arange(RATE) / RATE
    tones = torch.stack([(2 * math.pi * 500 * at).sin(), (2 * math.pi * 3000 * at).sin()])
    assert high_share(tones).tolist() == pytest.approx([0, 1], abs=1e-3)


def test_frames_that_count_see_nothing_but_the_sound() -> None:
    net = network()
    sound = 0.1 * torch.randn(1, SAMPLES)
    for layer in ("mel", "conv1", "conv2"):
        found = inside(net, layer, SAMPLES)
        assert found.whole
        longer = torch.cat([torch.randn(1, 800), sound, torch.randn(1, 800)], 1)  # 800 samples are 10 frames
        shift = 800 // (160 if layer == "conv2" else 80)
        among = net.activations(longer, [layer])[layer][:, :, shift : shift + 100]
        alone = net.activations(sound, [layer])[layer]
        torch.testing.assert_close(
            alone[:, :, found.frames], among[:, :, found.frames], atol=1e-4, rtol=1e-4, msg=f"{layer} sees the edge"
        )
    short = inside(net, "conv2", 200)
    assert not short.whole and short.last > short.first
    assert inside(net, OUTPUT, SAMPLES).frames == slice(0, 1)


def test_a_front_end_without_a_gradient_is_refused() -> None:
    with pytest.raises(InputError, match="'front' has no gradient with respect to the sound"):
        inside(deaf(), "front", SAMPLES)


class Correlation(nn.Module):
    """The products of a sound with given sounds: what excites one most is known."""

    def __init__(self, patterns: Tensor) -> None:
        super().__init__()
        self.patterns = patterns

    def forward(self, sounds: Tensor) -> Tensor:
        return (sounds @ self.patterns.T)[:, :, None]


@pytest.mark.parametrize("kind", [Waveform(), Fourier(step_size=0.1)])
def test_what_excites_a_linear_feature_most_is_its_own_pattern(kind: Any) -> None:
    at = torch.arange(SAMPLES) / RATE
    patterns = torch.stack([(2 * math.pi * hertz * at + 1).sin() for hertz in (440.0, 1320.0)])
    net = SoundNetwork(RATE, ("a", "b"), {"products": Correlation(patterns), OUTPUT: nn.Identity()}, 100)
    subject = Subject(net, "products", torch.zeros(2), torch.ones(2), Inside(0, 1, SAMPLES, whole=True))
    sound_format = SoundFormat(RATE, SAMPLES, 50.0, LogMel(RATE, 16, 256, 160, 80), torch.zeros(16))
    params = AscentParams(parameterisation=kind, steps=120, transformations=STILL)
    made = ascend(subject, ChannelObjective(), [0, 1], [1, 2], sound_format, params)
    best = RMS * math.sqrt(2) * SAMPLES / 2  # of a sine of that loudness with itself
    assert made.final.tolist() == pytest.approx([best, best], rel=0.03)
    assert made.sounds.abs().max() <= PEAK + 1e-4
    assert made.sounds.square().mean(1).sqrt().tolist() == pytest.approx([RMS, RMS], rel=1e-3)
    torch.testing.assert_close(made.final, made.optimised, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("layer", ["mel", "conv1", OUTPUT])
@pytest.mark.parametrize("kind", [Waveform(), Fourier(), LogMels()])
def test_features_of_a_network_are_excited_in_the_end_by_the_sound_itself(layer: str, kind: Any) -> None:
    if isinstance(kind, LogMels) and layer == "mel":
        pytest.skip("log-mels are what is optimised")
    net = network()
    count = net.activations(torch.zeros(1, SAMPLES), [layer])[layer].shape[1]
    subject = Subject(net, layer, torch.zeros(count), torch.ones(count), inside(net, layer, SAMPLES))
    mel = net.stages["mel"]
    assert isinstance(mel, LogMel)
    sound_format = SoundFormat(RATE, SAMPLES, 50.0, mel, torch.full((16,), -3.0))
    params = AscentParams(parameterisation=kind, steps=25)
    made = ascend(subject, ChannelObjective(), [0, 1, 2], [1, 2, 3], sound_format, params)
    assert bool((made.optimised > made.start).all())
    with torch.no_grad():  # through the whole network, by hand
        activations = net.activations(made.sounds, [layer])[layer][:, :, subject.inside.frames]
    expected = activations[torch.arange(3), torch.arange(3)].mean(1)
    torch.testing.assert_close(made.final, expected)
    if not isinstance(kind, LogMels):
        torch.testing.assert_close(made.final, made.optimised, rtol=0.05, atol=0.05)
    again = ascend(subject, ChannelObjective(), [0, 1, 2], [1, 2, 3], sound_format, params)
    assert torch.equal(again.sounds, made.sounds)


def test_a_clip_is_changed_less_the_closer_it_has_to_stay() -> None:
    net, clip = network(), 0.1 * torch.randn(SAMPLES)
    subject = Subject(net, "conv1", torch.zeros(8), torch.ones(8), inside(net, "conv1", SAMPLES))
    sound_format = SoundFormat(RATE, SAMPLES, 0.0, net.stages["mel"], torch.zeros(16))  # type: ignore[arg-type]
    distances = []
    for closeness in (0.0, 30.0):
        regularisation = RegularisationParams(closeness=closeness)
        params = AscentParams(
            parameterisation=Waveform(step_size=2e-3), steps=60, transformations=STILL, regularisation=regularisation
        )
        made = ascend(subject, ChannelObjective(), [0], [0], sound_format, params, clip)
        begun = sound_format.finished(clip)
        distances.append(float((made.sounds[0] - begun).square().mean() / begun.square().mean()))
    assert distances[1] < distances[0] / 3


def test_copies_differ_and_lie_next_to_each_other() -> None:
    net = network()
    subject = Subject(net, "conv1", torch.zeros(8), torch.ones(8), inside(net, "conv1", SAMPLES))
    sound_format = SoundFormat(RATE, SAMPLES, 50.0, net.stages["mel"], torch.zeros(16))  # type: ignore[arg-type]
    made = ascend(subject, ChannelObjective(), [3, 5], [7, 8], sound_format, AscentParams(steps=10, copies=2))
    assert made.sounds.shape == (4, SAMPLES)
    assert len({tuple(each[:20].tolist()) for each in made.sounds}) == 4
    own = made.activations[torch.arange(4), torch.tensor([3, 3, 5, 5])].mean(1)
    torch.testing.assert_close(made.final, own)


@pytest.mark.parametrize(("kind", "worst"), [("griffin_lim", 1.0), ("direct", 0.2)])
def test_a_vocoder_makes_a_sound_with_the_spectrogram_that_was_asked(kind: Any, worst: float) -> None:
    mel = LogMel(RATE, 16, 256, 160, 80)
    at = torch.arange(SAMPLES) / RATE
    sounds = torch.stack([0.1 * (2 * math.pi * 600 * at).sin(), 0.1 * (2 * math.pi * 300 * at * (1 + at)).sin()])
    sounds = sounds + 0.01 * torch.randn(sounds.shape)
    mels = mel(sounds)
    again = mel(vocode(mels, mel, SAMPLES, VocoderParams(kind=kind, step_size=5e-3)))
    error = (again - mels).square().mean() / (mels - mels.mean()).square().mean()
    assert float(error) < worst


def test_log_mels_need_a_network_that_begins_with_them() -> None:
    with pytest.raises(InputError, match="begins with 'filter'"):
        LogMels().after(without_mels())
    module = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 3, 64, 32))
    with pytest.raises(InputError, match="needs a network that begins with a log-mel spectrogram"):
        LogMels().check(WrappedNetwork(module, RATE), "output")
