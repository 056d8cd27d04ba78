"""Log-mel spectrograms: against torchaudio's, their gradient against finite differences, silence."""

import pytest
import torch
import torchaudio
from torch.nn import functional

from jobs.common.audio import power
from jobs.common.audio.mel import FLOOR, LogMel
from jobs.common.audio.power import mirrored
from service.errors import FieldError


@pytest.mark.parametrize(
    ("rate", "bands", "size", "window", "hop"), [(16_000, 64, 512, 320, 160), (8_000, 20, 256, 256, 80)]
)
def test_it_is_that_of_torchaudio(rate: int, bands: int, size: int, window: int, hop: int) -> None:
    sounds = 0.1 * torch.randn(3, rate, dtype=torch.float64)
    sounds[1] *= torch.linspace(0, 1, rate, dtype=torch.float64)
    theirs = torchaudio.transforms.MelSpectrogram(rate, size, window, hop, n_mels=bands).double()
    expected = (theirs(sounds) + FLOOR).log()
    ours = LogMel(rate, bands, size, window, hop).double()
    assert ours.frames(rate) == expected.shape[2]
    torch.testing.assert_close(ours(sounds), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "window"), [(64, 64), (63, 40)])
def test_its_gradient_is_that_of_finite_differences(size: int, window: int) -> None:
    mel = LogMel(8_000, 8, size, window, 32).double()
    sounds = 0.1 * torch.randn(2, 200, dtype=torch.float64)
    assert torch.autograd.gradcheck(mel, (sounds.requires_grad_(),), eps=1e-6, atol=1e-4)


def test_a_batch_in_parts_is_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    mel, sounds, slopes = LogMel(8_000), torch.randn(5, 4000, requires_grad=True), torch.randn(5, 64, 26)
    whole = mel(sounds)
    (gradient,) = torch.autograd.grad(whole, sounds, slopes)
    monkeypatch.setattr(power, "CACHED", 2 * 26 * 512)  # two sounds
    assert torch.equal(mel(sounds), whole)
    assert torch.equal(torch.autograd.grad(mel(sounds), sounds, slopes)[0], gradient)


def test_ends_are_mirrored_as_torch_mirrors_them() -> None:
    sounds, slopes = torch.randn(2, 50, requires_grad=True), torch.randn(2, 50 + 7 + 49)
    ours, theirs = mirrored(sounds, 7, 49), functional.pad(sounds[:, None], (7, 49), mode="reflect")[:, 0]
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad(each, sounds, slopes)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_silence_is_finite_and_has_a_finite_gradient() -> None:
    mel, silence = LogMel(16_000), torch.zeros(1, 4000, requires_grad=True)
    values = mel(silence)
    assert torch.allclose(values, torch.tensor(FLOOR).log())
    values.sum().backward()
    assert silence.grad is not None and bool(torch.isfinite(silence.grad).all())


def test_what_no_spectrogram_can_be() -> None:
    with pytest.raises(FieldError, match="window must be from hop, 160, to size, 512"):
        LogMel(16_000, window=1024)
    with pytest.raises(FieldError, match="a filter lies between two of them"):
        LogMel(16_000, bands=200, size=512)
