"""Sound files: what is read against what was written, and whatever cannot be a sound is refused in a sentence."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from jobs.common.audio.files import Sound, read, wav
from jobs.common.audio.levels import PEAK, RMS, quantised
from service.errors import InputError

RATE = 8_000


def tone(hertz: float = 440.0, seconds: float = 0.25, rate: int = RATE, loudness: float = 0.5) -> np.ndarray:
    return loudness * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def written(samples: np.ndarray, rate: int = RATE, **options: str) -> io.BytesIO:
    data = io.BytesIO()
    soundfile.write(data, samples, rate, **{"format": "WAV", **options})
    data.seek(0)
    return data


def test_rates_with_little_in_common_are_refused() -> None:
    """The filter between them would have as many numbers as their product."""
    with pytest.raises(InputError, match="44,101 samples a second cannot be brought to 16,000"):
        Sound(torch.zeros(44_101), 44_101).at_rate(16_000)
    assert Sound(torch.zeros(44_100), 44_100).at_rate(16_000).samples.shape == (16_000,)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"format": "WAV", "subtype": "PCM_U8"}, 0.01),
        ({"format": "WAV", "subtype": "PCM_16"}, 1e-4),
        ({"format": "WAV", "subtype": "PCM_24"}, 1e-6),
        ({"format": "WAV", "subtype": "PCM_32"}, 1e-6),
        ({"format": "WAV", "subtype": "FLOAT"}, 1e-7),
        ({"format": "WAV", "subtype": "DOUBLE"}, 1e-6),
        ({"format": "FLAC"}, 1e-4),
        ({"format": "OGG"}, 0.05),
        ({"format": "MP3"}, 0.05),
    ],
)
def test_every_format_and_depth_is_read(options: dict[str, str], tolerance: float) -> None:
    samples = tone(rate=16_000)
    sound = read(written(samples, 16_000, **options), "a tone")
    assert sound.rate == 16_000 and abs(len(sound.samples) - len(samples)) < 1300
    if options["format"] == "MP3":  # its encoder moves sounds in time
        assert float(sound.samples.abs().max()) == pytest.approx(0.5, abs=tolerance)
    else:
        np.testing.assert_allclose(sound.samples.numpy()[: len(samples)], samples, atol=tolerance)


def test_channels_are_averaged() -> None:
    left, right = tone(300), tone(700)
    sound = read(written(np.stack([left, right], 1), subtype="FLOAT"), "stereo")
    np.testing.assert_allclose(sound.samples.numpy(), (left + right) / 2, atol=1e-6)


def test_a_rate_is_changed_and_the_tone_stays() -> None:
    sound = Sound(torch.from_numpy(tone(440, 1.0, 44_100)).float(), 44_100).at_rate(16_000)
    assert len(sound.samples) == 16_000
    expected = torch.from_numpy(tone(440, 1.0, 16_000)).float()
    inside = slice(200, -200)  # a filter knows nothing beyond the ends
    assert float((sound.samples - expected)[inside].abs().max()) < 5e-3


def test_loudness_is_constant_and_peaks_are_limited() -> None:
    loud = Sound(torch.from_numpy(tone(loudness=0.9)).float(), RATE).at_loudness().samples
    quiet = Sound(torch.from_numpy(tone(loudness=1e-3)).float(), RATE).at_loudness().samples
    assert torch.allclose(loud, quiet, atol=1e-5)
    assert float(loud.square().mean().sqrt()) == pytest.approx(RMS, rel=1e-3)
    click = torch.zeros(1000)
    click[500] = 1.0
    assert float(Sound(click, RATE).at_loudness().samples.abs().max()) == pytest.approx(PEAK)
    assert torch.equal(Sound(torch.zeros(10), RATE).at_loudness().samples, torch.zeros(10))


def test_clipping_is_noticed() -> None:
    clean = torch.from_numpy(tone(loudness=1.0)).float()
    assert not Sound(clean, RATE).clipped and not Sound(torch.zeros(100), RATE).clipped
    assert Sound((3 * clean).clamp(-1, 1), RATE).clipped


def test_what_is_written_is_read_again() -> None:
    samples = torch.from_numpy(tone()).float()
    again = read(io.BytesIO(wav(samples, RATE)), "again")
    assert torch.allclose(again.samples, samples, atol=1e-4)
    whole, _ = soundfile.read(io.BytesIO(wav(samples, RATE)), dtype="int16")
    assert torch.equal(torch.from_numpy(whole) / 32767, quantised(samples)), "rounded to the nearest, also below zero"


def hostile() -> dict[str, tuple[bytes, str]]:
    good = written(tone()).getvalue()
    promised = good[:40] + struct.pack("<I", 0xFFFFFFFF) + good[44:44]
    nan, far = tone().astype(np.float32), tone(loudness=20_000).astype(np.float32)
    nan[7] = np.nan
    return {
        "nothing": (b"", "it is empty"),
        "text": (b"this is not a sound" * 100, "is none of WAV"),
        "cut in the header": (good[:20], "is none of WAV"),
        "a length without samples": (promised, "it has no samples"),
        "not a number": (written(nan, subtype="FLOAT").getvalue(), "finite"),
        "whole numbers as floats": (written(far, subtype="FLOAT").getvalue(), "must be within [-1, 1]"),
        "silence": (written(np.zeros(2000)).getvalue(), "it is silent"),
        "too many channels": (written(np.zeros((100, 12))).getvalue(), "from 1 to 8 channels; it has 12"),
        "too few a second": (written(tone(rate=1000), 1000).getvalue(), "from 4,000 to 192,000"),
        "too long": (written(tone(seconds=3.0)).getvalue(), "must last at most 2 seconds; it lasts 3.0"),
        "too short": (written(tone(seconds=0.05)).getvalue(), "must last at least 0.1 seconds; it lasts 0.05"),
    }


@pytest.mark.parametrize("kind", hostile())
def test_what_is_no_sound_is_refused(kind: str) -> None:
    data, reason = hostile()[kind]
    with pytest.raises(InputError) as refused:
        read(io.BytesIO(data), "upload", most_seconds=2.0, shortest_seconds=0.1)
    assert refused.value.message.startswith("upload cannot be read: ") and reason in refused.value.message
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no sound file"):
        read(tmp_path / "none.wav", "a sound")


def test_a_file_beyond_the_limit_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.common.audio.files.MOST_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1,000 bytes"):
        read(written(tone()), "upload")
