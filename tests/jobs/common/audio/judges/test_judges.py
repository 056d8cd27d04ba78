"""Judges: what they say of sounds that are known, and of those that are not there."""

import sys
from pathlib import Path

import pytest
import torch

from jobs.common.audio import judges
from jobs.common.audio.judges.quality import QualityJudge
from jobs.common.audio.judges.speaker import SpeakerJudge
from jobs.common.audio.resampling import resampled
from jobs.common.data.packages import MOONSHINE, RESEMBLYZER, SPEECHMOS
from tests.jobs.common.audio.weights import beckett, tone
from tests.jobs.common.fetched import needs


@needs(RESEMBLYZER, MOONSHINE)
def test_one_voice_is_like_itself_and_unlike_another() -> None:
    """The same voice in other words; and the same words a third higher, as of a smaller person."""
    judge, sound = SpeakerJudge(), beckett()
    one, other = sound[:80_000], sound[80_000:]
    higher = resampled(other, 20_000, 16_000)
    itself = judge.similarity(one, other)
    assert itself > 0.8 and itself > judge.similarity(one, higher) + 0.1
    assert judge.similarity(one, tone(200, 5.0)) < 0.7
    assert judge.similarity(one, one) == pytest.approx(1, abs=1e-5)
    assert float(judge.voice(one[:4000]).norm()) == pytest.approx(1, abs=1e-5), "shorter than a piece"


@needs(SPEECHMOS, MOONSHINE)
def test_noise_costs_quality() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    judge, sound = QualityJudge(), beckett()
    noise = torch.randn(len(sound), generator=torch.Generator().manual_seed(0))
    clean, noisy = judge.scores(sound), judge.scores((sound + 0.05 * noise).clamp(-1, 1))
    assert all(1 <= value <= 5 for scores in (clean, noisy) for value in scores.values())
    assert clean["background"] > noisy["background"] + 0.5 and clean["overall"] > noisy["overall"] + 0.5


def test_absent_judges_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    there = judges.load(folder=tmp_path)
    assert (there.pitch, there.speaker, there.moonshine, there.sphinx, there.quality) == (None,) * 5
    text = " ".join(there.absent)
    assert len(there.absent) == 5
    for package in ("torchcrepe", "Resemblyzer", "moonshine-voice", "pocketsphinx", "speechmos"):
        assert package in text
