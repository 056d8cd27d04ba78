"""Music: tunes that are the same always and differ from each other, folders of songs, excerpts."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from jobs.common.audio.levels import RMS
from jobs.common.data.debian import OPENMSX, SOUND_FONT
from jobs.common.data.music import MusicParams, openmsx
from jobs.common.data.music.base import Songs
from jobs.common.data.music.composition import BAR, SCALES, TEMPI, composed
from jobs.common.data.music.excerpts import excerpts
from jobs.common.data.music.instruments import BASSES, CHORDS, LEADS, PIANO, Drums, Envelope, reverberated
from jobs.common.data.music.tunes import tune
from jobs.common.data.sets import default_folder
from service.errors import FieldError, InputError

RATE = 8_000


def tunes(**options: int | float) -> tuple[Songs, Songs]:
    return MusicParams(**{"rate": RATE, "seconds": 3, "enrolled": 3, "others": 2, **options}).load()  # type: ignore[arg-type]


def test_tunes_depend_on_the_seed_and_their_number_alone() -> None:
    enrolled, others = tunes()
    assert enrolled.names == ("tune 0", "tune 1", "tune 2") and others.names == ("tune 3", "tune 4")
    more, _ = tunes(enrolled=4, others=0)
    assert torch.equal(more.sounds[3], others.sounds[0]) and torch.equal(more.sounds[0], enrolled.sounds[0])
    assert tunes()[0].digest == enrolled.digest != tunes(seed=1)[0].digest
    for sound in (*enrolled.sounds, *others.sounds):
        assert sound.shape == (3 * RATE,) and sound.dtype == torch.float32
        assert float(sound.square().mean().sqrt()) == pytest.approx(RMS, rel=0.3) and float(sound.abs().max()) <= 1
        assert torch.equal((sound * 32767).round() / 32767, sound), "a WAV holds it as it is"
    assert enrolled.part([2, 0]).names == ("tune 2", "tune 0") and enrolled.seconds == 9


def test_what_is_composed_is_in_its_key_and_its_time() -> None:
    """Every note is of the scale; each begins within a few hundredths of a second of a sixteenth."""
    for seed in range(5):
        written = composed(10, np.random.default_rng(seed))
        steps = {(note.pitch - written.key.tonic) % 12 for note in written.notes if note.part in ("chords", "bass")}
        assert steps <= set(SCALES[written.key.scale]) and len(steps) > 3
        step = 60 / written.tempo / 4
        late = np.array([(note.start / step + 0.5) % 1 - 0.5 for note in written.notes]) * step
        assert np.abs(late).max() < 0.06 and 0.005 < late.std() < 0.011
        assert written.tempo in TEMPI and max(note.start for note in written.notes) > 10 - 4 * BAR * step
        assert {note.part for note in written.notes} >= {"lead", "chords", "bass"}
    keys = [composed(1, np.random.default_rng(seed)) for seed in range(40)]
    assert len({each.tempo for each in keys}) > 5 and len({each.key.tonic for each in keys}) > 7
    assert len({(each.tempo, each.key) for each in keys}) < 40 or len({each.tempo for each in keys}) < 40, "some agree"


@pytest.mark.parametrize("instrument", {*LEADS, *CHORDS, *BASSES}, ids=lambda each: type(each).__name__)
def test_a_tone_has_the_pitch_that_is_written(instrument: object) -> None:
    """Its partials are at multiples of 440 hertz, or at the sidebands of its ratio; and it ends in silence."""
    tone = instrument.tone(69, 1.0, RATE)  # type: ignore[attr-defined]
    assert float(tone.abs().max()) <= 1.01 and abs(float(tone[-1])) < 0.01 and bool(tone.isfinite().all())
    spectrum = torch.fft.rfft(tone[RATE // 4 : RATE // 4 + 4000] * torch.hann_window(4000)).abs()
    at = spectrum[217:224].max()  # 440 hertz, 2 a bin
    assert at > 0.2 * spectrum.max()
    octave = instrument.tone(81, 1.0, RATE)  # type: ignore[attr-defined]
    higher = torch.fft.rfft(octave[RATE // 4 : RATE // 4 + 4000] * torch.hann_window(4000)).abs()
    assert higher[217:224].max() < 0.1 * higher.max()


def test_envelopes_drums_and_rooms() -> None:
    curve = Envelope(0.1, 0.2, 0.5, 0.1).curve(1.0, 1000)
    assert len(curve) == 1100 and float(curve[100]) == pytest.approx(1, abs=0.01)
    assert float(curve[50]) == pytest.approx(0.5, abs=0.01) and float(curve[900]) == pytest.approx(0.509, abs=0.005)
    strokes = {name: Drums().stroke(name, RATE) for name in ("kick", "snare", "hat")}
    centres = {}
    for name, stroke in strokes.items():
        power = torch.fft.rfft(stroke).abs().square()
        centres[name] = float((power * torch.arange(len(power))).sum() / power.sum()) / len(stroke)
        assert float(stroke.abs().max()) < 1.2
    assert centres["kick"] < centres["snare"] < centres["hat"]
    click = torch.zeros(RATE)
    click[0] = 1
    room = reverberated(click, RATE, 0.5, 0.2, seed=1) - click
    early, late = room[1:1000].square().mean(), room[2000:3000].square().mean()
    assert float(10 * (early / late).log10()) == pytest.approx(60 * 2000 / (0.5 * RATE), abs=4)  # 60 dB in 0.5 s
    assert float(room.norm()) == pytest.approx(0.2, rel=0.1)


def test_excerpts_are_parts_of_their_songs() -> None:
    songs, _ = tunes()
    parts = excerpts(songs, 1.5, each=4, seed=3)
    assert (
        len(parts) == 12 and parts.sounds.shape == (12, 12_000) and parts.songs.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    )
    for sound, song, start in zip(parts.sounds, parts.songs, parts.starts, strict=True):
        assert torch.equal(sound, songs.sounds[song][start : start + 12_000])
    assert len(set(parts.starts.tolist())) == 12 and float(parts.seconds.max()) <= 1.5
    assert torch.equal(parts.starts, excerpts(songs, 1.5, each=4, seed=3).starts)
    assert not torch.equal(parts.starts, excerpts(songs, 1.5, each=4, seed=4).starts)
    assert excerpts(songs.part([]), 1.5, each=4, seed=3).sounds.shape == (0, 12_000)
    with pytest.raises(FieldError, match="must be at most 3, a song's; it is 4"):
        excerpts(songs, 4.0, each=1, seed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four songs of three formats and two rates, in two folders; one is longer than is wanted."""
    (tmp_path / "album").mkdir()
    for number, name in enumerate(("a.wav", "album/b.flac", "album/c.ogg", "album/d.wav")):
        rate = RATE if number % 2 else 16_000
        sound = tune(9, number, 5 if number == 3 else 2, rate).numpy()
        soundfile.write(tmp_path / name, np.stack([sound, sound], 1) / np.abs(sound).max() / 2, rate)
    (tmp_path / "cover.png").write_bytes(b"no sound")
    (tmp_path / ".hidden.wav").write_bytes(b"junk")
    return tmp_path


def test_any_folder_of_music(folder: Path) -> None:
    params = MusicParams(name="music_folder", root=str(folder), rate=RATE, seconds=3, enrolled=2, others=2)
    enrolled, others = params.load()
    names = (*enrolled.names, *others.names)
    assert sorted(names) == ["a.wav", "album/b.flac", "album/c.ogg", "album/d.wav"]
    lengths = dict(zip(names, map(len, (*enrolled.sounds, *others.sounds)), strict=True))
    assert lengths["a.wav"] == 2 * RATE and lengths["album/d.wav"] == 3 * RATE
    assert params.load()[0].digest == enrolled.digest
    sound = dict(zip(names, (*enrolled.sounds, *others.sounds), strict=True))["album/d.wav"]
    whole = tune(9, 3, 5, RATE)[RATE : 4 * RATE]  # its middle
    assert float(torch.corrcoef(torch.stack([sound, whole]))[0, 1]) > 0.999


def test_what_is_wrong_with_a_folder(folder: Path) -> None:
    def load(**options: object) -> None:
        MusicParams(**{"name": "music_folder", "root": str(folder), "enrolled": 2, "others": 2, **options}).load()  # type: ignore[arg-type]

    with pytest.raises(FieldError, match="must be at most 4, the number of songs of music_folder; it is 5"):
        load(others=3)
    with pytest.raises(InputError, match="needs root"):
        load(root=None)
    with pytest.raises(InputError, match="there is no folder"):
        load(root=str(folder / "nowhere"))
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="there is no sound in .*empty"):
        load(root=str(folder / "empty"))
    (folder / "album" / "d.wav").write_bytes((folder / "a.wav").read_bytes())
    with pytest.raises(InputError, match="'(a|album/d).wav' and '(a|album/d).wav' are the same song"):
        load()
    (folder / "album" / "d.wav").write_bytes(b"RIFF junk")
    with pytest.raises(InputError, match=r"song 'album/d\.wav' cannot be read: it is none of WAV"):
        load()
    with pytest.raises(InputError, match="songs must take at most 2 GB; 100,020 of them take 123"):
        MusicParams(enrolled=100_000, others=20).load()


def build(source: MusicParams) -> tuple[Songs, Songs]:
    """A set of somebody's own."""
    good = Songs("mine", source.rate, ["one"], [torch.zeros(100)])
    bad = {1: Songs("mine", 44_100, [], []), 2: Songs("mine", source.rate, ["two"], [torch.full((9,), 3.0)]), 3: [1]}
    return good, bad.get(source.seed, good)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("seed", "sentence"),
    [(1, "must have 11,025 samples a second"), (2, r"must be within \[-1, 1\]"), (3, "must return two Songs")],
)
def test_a_set_of_ones_own(seed: int, sentence: str) -> None:
    name = f"{__name__}:build"
    assert MusicParams(name=name).load()[0].names == ("one",)
    with pytest.raises(InputError, match=sentence):
        MusicParams(name=name, seed=seed).load()
    assert PIANO in LEADS


def test_midi_that_cannot_be_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thing that is missing is named, with what brings it."""
    params = MusicParams(name="openmsx", root=str(tmp_path), enrolled=1, others=0)
    for package, name in ((OPENMSX, "a.mid"), (SOUND_FONT, "a.sf2")):
        with pytest.raises(InputError, match=f"there is no .*{package.holds}.*make data"):
            params.load()
        (tmp_path / package.holds).mkdir(parents=True)
        if package is OPENMSX:
            (tmp_path / package.holds / name).write_bytes(b"")
    with pytest.raises(InputError, match="hold no MIDI or no sound font"):
        params.load()
    (tmp_path / SOUND_FONT.holds / "a.sf2").write_bytes(b"")
    monkeypatch.setattr(openmsx, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package tinysoundfont .pip install --no-deps tinysoundfont==0.3.7"):
        params.load()


def test_midi_is_played_by_the_instruments_of_a_sound_font() -> None:
    pytest.importorskip("tinysoundfont", reason="the package tinysoundfont is not installed (`make data`)")
    if not all((default_folder() / package.holds).is_dir() for package in (OPENMSX, SOUND_FONT)):
        pytest.skip("the music of OpenTTD and a sound font are not there (`make data`)")
    params = MusicParams(name="openmsx", rate=RATE, seconds=3, enrolled=2, others=1)
    enrolled, others = params.load()
    assert len({*enrolled.names, *others.names}) == 3 and params.load()[0].digest == enrolled.digest
    assert all(float(sound.square().mean().sqrt()) > RMS / 2 for sound in enrolled.sounds)
