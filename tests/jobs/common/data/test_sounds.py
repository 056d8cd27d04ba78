"""Labelled sounds: folders, recordings, spoken words, sets of the user's own; what is damaged is said."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError

from jobs.common.audio.levels import RMS
from jobs.common.data.debian import ALSA, POCKETSPHINX
from jobs.common.data.sounds import DataParams, synthesis
from jobs.common.data.sounds.base import Clips, Source
from service.errors import FieldError, InputError

RATE = 8_000


def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes; files of three formats and two rates."""
    for split in ("train", "test"):
        for name, hertz in (("high", 1000.0), ("low", 300.0)):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            soundfile.write(place / "a.wav", tone(hertz, 0.5), RATE)
            soundfile.write(place / "b.flac", tone(hertz, 0.1, 16_000), 16_000)
            soundfile.write(place / "c.ogg", np.stack([tone(hertz, 0.3)] * 2, 1), RATE)
            (place / "notes.txt").write_text("no sound")
            (place / ".hidden.wav").write_bytes(b"junk")
    return tmp_path


def of_folder(root: Path, **options: Any) -> DataParams:
    return DataParams(name="sound_folder", root=str(root), rate=RATE, seconds=0.25, **options)


def test_a_folder_becomes_clips_of_one_length_rate_and_loudness(folder: Path) -> None:
    train, test = of_folder(folder).load_splits()
    assert train.classes == ("high", "low") and len(train) == len(test) == 6
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and train.names[1] == "high/b.flac"
    sounds = train.sounds(torch.arange(6))
    assert sounds.shape == (6, 2000) and sounds.dtype == torch.float32
    for sound, hertz in zip(sounds, [1000] * 3 + [300] * 3, strict=True):
        peak = int(torch.fft.rfft(sound).abs().argmax()) * RATE / 2000
        assert abs(peak - hertz) < 12
        loud = sound[sound.abs() > 0.01]
        assert float(loud.square().mean().sqrt()) == pytest.approx(RMS, rel=0.2)
    short = sounds[1]  # 0.1 s in the middle of 0.25 s, between noise
    assert float(short[:500].abs().max()) < 0.01 < float(short[700:1300].abs().max())
    part = of_folder(folder, train_limit=3).load("train")
    assert len(part) == 3 and len(part.names) == 3 and part.digest != train.digest
    assert of_folder(folder).load("train").digest == train.digest


def test_what_is_wrong_with_a_folder(folder: Path) -> None:
    with pytest.raises(FieldError, match="data.test_limit must be at most 6"):
        of_folder(folder, test_limit=7).load("test")
    with pytest.raises(InputError, match="needs root"):
        DataParams(name="sound_folder").load("train")
    with pytest.raises(InputError, match="does not hold folders of sounds"):
        of_folder(folder / "nowhere").load("train")
    (folder / "train" / "high" / "d.wav").write_bytes(b"RIFF junk")
    with pytest.raises(InputError, match=r"d\.wav' cannot be read: it is none of WAV"):
        of_folder(folder).load("train")
    (folder / "test" / "empty").mkdir()
    with pytest.raises(InputError, match="there is no sound in .*empty"):
        of_folder(folder).load("test")
    shutil.rmtree(folder / "test" / "empty")
    shutil.rmtree(folder / "train" / "low")
    (folder / "train" / "high" / "d.wav").unlink()
    with pytest.raises(InputError, match="classes of sound_folder to test must be those to train"):
        of_folder(folder).load_splits()


def test_recordings_are_cut_into_clips_of_which_each_is_to_train_or_to_test(tmp_path: Path) -> None:
    place = tmp_path / POCKETSPHINX.holds
    for name, seconds in (("librivox/sentence", 2.6), ("cards/001", 0.6)):
        (place / name).parent.mkdir(parents=True)
        soundfile.write(place / f"{name}.wav", tone(500, seconds), RATE)
    train, test = DataParams(name="pocketsphinx", root=str(tmp_path), rate=RATE, seconds=0.25).load_splits()
    assert train.classes == ("sentence", "001")
    assert len(train) + len(test) == 10 + 2 and not set(train.names) & set(test.names)
    assert set(test.labels.tolist()) == {0, 1}
    with pytest.raises(InputError, match="make data"):
        DataParams(name="alsa", root=str(tmp_path / "none")).load("train")
    assert ALSA.name == "alsa-utils"


def test_spoken_words_are_the_same_always_and_spoken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader", reason="the package espeakng-loader is not installed")
    speech = {"words": ("yes", "no"), "voices": ("en-us+m1", "en+f3"), "pitches": (20, 80), "speeds": (160,)}
    params = DataParams(root=str(tmp_path / "a"), rate=RATE, speech=speech)  # type: ignore[arg-type]
    train, test = params.load_splits()
    assert train.classes == ("yes", "no") and (len(train), len(test)) == (6, 2)
    assert not (tmp_path / "a").exists(), "nothing is spoken before it is asked for"
    assert set(train.factors["voice"]) == {"en-us+m1", "en+f3"} and set(train.factors["pitch"]) == {20.0, 80.0}
    other = DataParams(root=str(tmp_path / "b"), rate=RATE, speech=speech)  # type: ignore[arg-type]
    assert other.load("train").digest == train.digest, "spoken anew by another process"
    sounds = {
        name: sound
        for part in (train, test)
        for name, sound in zip(part.names, part.sounds(torch.arange(len(part))), strict=True)
    }
    assert len({tuple(each[:300].tolist()) for each in sounds.values()}) == 8, "all differ"

    train, _ = pickle.loads(pickle.dumps(other.load_splits()))
    assert train.digest == other.load("train").digest, "it travels with its samples"
    (kept,) = (tmp_path / "a" / "speech").iterdir()
    monkeypatch.setattr(synthesis, "_spoken", None)  # nothing is spoken again
    assert params.load("test").digest == test.digest
    monkeypatch.undo()
    kept.write_bytes(kept.read_bytes()[:100])  # damaged: it is spoken again
    assert params.load("test").digest == test.digest


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"voices": ("en-us+m99",)}, "speech.voices must end in a variant of espeak-ng"),
        ({"voices": ("xx-yy",)}, "espeak-ng has no voice 'xx-yy'"),
        ({"pitches": (100,)}, "speech.pitches must be from 0 to 99"),
        ({"speeds": (10,)}, "speech.speeds must be from 80 to 450"),
        ({"words": ("one", " ")}, "speech.words must be words"),
        ({"pitches": tuple(range(100)), "speeds": tuple(range(100, 200))}, "at most 50,000 combinations"),
    ],
)
def test_what_cannot_be_spoken(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    pytest.importorskip("espeakng_loader", reason="the package espeakng-loader is not installed")
    with pytest.raises(InputError, match=sentence):
        DataParams(root=str(tmp_path), speech=change).load("train")  # type: ignore[arg-type]


OWN = """
import torch
from jobs.common.data.sounds.base import Clips

def build(split, source):
    ones = torch.ones(4, 100, dtype=torch.int16)
    clips = Clips("own", ("a", "b"), ones, torch.tensor([0, 1, 0, 1]), 8000, list("wxyz"))
    if split == "test":
        clips.factors = {"mood": (1.0,)}
    return clips

def other(split, source):
    return object()
"""


def test_sets_of_the_users_own(own_package: None) -> None:
    assert len(DataParams(name="mypackage.module:build").load("train")) == 4
    with pytest.raises(InputError, match="mood of 'mypackage.module:build' must be 4, one for each clip; they are 1"):
        DataParams(name="mypackage.module:build").load("test")
    with pytest.raises(InputError, match="lacks name, classes"):
        DataParams(name="mypackage.module:other").load("train")


def test_clips_must_fit_their_labels() -> None:
    with pytest.raises(InputError, match="labels of x must be from 0 to 1; they are from 0 to 2"):
        Clips("x", ("a", "b"), torch.ones(2, 5, dtype=torch.int16), torch.tensor([0, 2]), RATE, ("p", "q"))
    with pytest.raises(InputError, match="2 labels for samples of torch.float32"):
        Clips("x", ("a", "b"), torch.ones(2, 5), torch.tensor([0, 1]), RATE, ("p", "q"))
    assert Source(seconds=0.5, rate=RATE).samples == 4000


@pytest.mark.parametrize("field", ["words", "voices", "pitches", "speeds"])
def test_what_is_spoken_is_named_once(field: str) -> None:
    """An utterance that is there twice would be in both splits."""
    twice: tuple[Any, ...] = {"words": ("one", "one"), "voices": ("en", "en")}.get(field, (90, 90))
    with pytest.raises(ValidationError, match=f"speech.{field}\n.*must name each once"):
        DataParams(speech={field: twice})  # type: ignore[arg-type]


def test_a_clip_has_samples() -> None:
    with pytest.raises(ValidationError, match="seconds"):
        DataParams(seconds=1e-6)
