"""The judges by Chromaprint: comparison against loops; the program itself, where it is."""

from pathlib import Path

import numpy as np
import pytest

from jobs.copyright_attack.judges import chromaprint
from jobs.copyright_attack.judges.chromaprint import (
    SILENCE,
    AcoustidJudge,
    ChromaprintJudge,
    bit_agreement,
    items_alike,
)
from service.errors import InputError, RunFailedError
from tests.jobs.copyright_attack.judges.music import RATE, arrays, tone, tunes

ABSENT = ChromaprintJudge().available()
needs_fpcalc = pytest.mark.skipif(ABSENT is not None, reason=ABSENT or "")


def items(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 32, count, dtype=np.uint32)


def with_errors(clean: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """So many of the 20 lowest bits of each item turned over."""
    generator = np.random.default_rng(seed)
    turned = [sum(1 << int(bit) for bit in generator.choice(20, bits, replace=False)) for _ in clean]
    return clean ^ np.array(turned, np.uint32)


def test_items_alike_are_those_of_a_loop() -> None:
    song = items(0, 40)
    query = np.concatenate([with_errors(song[11:20], 2, 1), items(2, 5), with_errors(song[25:30], 3, 3)])
    query[3] = song[14] = SILENCE
    shifts: dict[int, int] = {}
    for i, one in enumerate(query.tolist()):
        for j, other in enumerate(song.tolist()):
            if SILENCE not in (one, other) and (one ^ other).bit_count() <= 2:
                shifts[i - j] = shifts.get(i - j, 0) + 1
    assert max(shifts.values()) == 8
    assert items_alike(query, song) == items_alike(song, query) == 8 / len(query)


@pytest.mark.parametrize("place", [-4, 0, 9, 25])
def test_bits_are_counted_at_the_shift_that_fits(place: int) -> None:
    """Also where the query begins before the song, or goes on after its end."""
    song, around = items(0, 40), items(1, 60)
    around[10:50] = song
    query = with_errors(around[10 + place : 10 + place + 18], 6, 2)
    inside = slice(max(place, 0), min(place + 18, 40))
    meeting = query[max(-place, 0) :][: inside.stop - inside.start]
    errors = [(int(a) ^ int(b)).bit_count() for a, b in zip(meeting, song[inside], strict=True)]
    assert bit_agreement(query, song) == pytest.approx(1 - sum(errors) / len(errors) / 32)
    assert bit_agreement(query, song) == pytest.approx(1 - 6 / 32)


def test_what_begins_alike_nowhere_does_not_agree() -> None:
    nothing, silence = np.zeros(0, np.uint32), np.full(9, SILENCE, np.uint32)
    for one, other in ((items(0, 30), items(1, 30)), (nothing, items(0, 5)), (nothing, nothing), (silence, silence)):
        assert bit_agreement(one, other) == 0 and items_alike(one, other) == 0


@pytest.mark.parametrize(
    ("output", "sentence"),
    [("", "no fingerprint"), ("[]", "no fingerprint"), ('{"duration": 3}', "no"), ('{"fingerprint": ["x"]}', "no")],
)
def test_what_the_program_must_not_print(output: str, sentence: str) -> None:
    with pytest.raises(RunFailedError, match=sentence):
        chromaprint._items(output)


def test_signed_numbers_are_the_same_items() -> None:
    assert chromaprint._items('{"fingerprint": [-1, 4294967295, 5]}').tolist() == [4294967295, 4294967295, 5]


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """An fpcalc that does what the lines of shell say, in the data folder."""
    path = folder / "data/usr/bin/fpcalc"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n[ $1 = -version ] && echo fpcalc version 9.9.9 && exit\n{lines}\n")
    path.chmod(0o755)
    monkeypatch.setenv("ASSAY_DATA", str(folder / "data"))
    monkeypatch.setattr("jobs.copyright_attack.judges.programs.shutil.which", which(path))


def which(path: Path):  # type: ignore[no-untyped-def]
    def only_there(name: str, path: str | None = None) -> str | None:  # noqa: ARG001
        return None if path is None else str(Path(path) / name)

    return only_there


@pytest.mark.parametrize("status", [0, 3])
def test_both_statuses_of_a_whole_fingerprint(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, f"echo '{{\"fingerprint\": [7, 8]}}'; exit {status}")
    judge = ChromaprintJudge()
    assert judge.available() is None and judge.version == "9.9.9"
    assert judge.fingerprint(tone(440, 1.0), RATE)["items"].tolist() == [7, 8]


def test_a_sound_too_short_has_no_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "echo ERROR: Empty fingerprint >&2; exit 2")
    assert ChromaprintJudge().fingerprint(tone(440, 0.3), RATE)["items"].tolist() == []


def test_a_program_that_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "echo no such decoder >&2; exit 1")
    with pytest.raises(RunFailedError, match="fpcalc failed: no such decoder"):
        ChromaprintJudge().fingerprint(tone(440, 1.0), RATE)
    (tmp_path / "data/usr/bin/fpcalc").write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr("jobs.copyright_attack.judges.programs.TIMEOUT", 0.2)
    with pytest.raises(RunFailedError, match="fpcalc took longer than 0.2 seconds"):
        ChromaprintJudge().fingerprint(tone(440, 1.0), RATE)


def test_a_program_that_is_absent_or_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path))
    reason = AcoustidJudge().available()
    assert reason is not None and "need the program fpcalc" in reason and "libchromaprint-tools" in reason
    with pytest.raises(InputError, match="need the program fpcalc"):
        AcoustidJudge().fingerprint(tone(440, 1.0), RATE)
    path = tmp_path / "fpcalc"
    path.write_text("#!/bin/sh\necho libavcodec.so.59: cannot open shared object file >&2; exit 127\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    reason = AcoustidJudge().available()
    assert reason is not None and "cannot be run: libavcodec.so.59" in reason


@needs_fpcalc
def test_noise_is_heard_through_and_another_song_is_not_the_same() -> None:
    songs, others = tunes()
    noise = np.random.default_rng(0).normal(0, 0.1 * 10 ** (-10 / 20), len(songs.sounds[1])).astype(np.float32)
    for judge in (ChromaprintJudge(), AcoustidJudge()):
        judge.enrol(arrays(songs), RATE)
        verdict = judge.judge(songs.sounds[1].numpy() + noise, RATE)
        assert verdict.identified and verdict.song == songs.names[1] and verdict.score > 0.8
        assert not judge.judge(others.sounds[0].numpy(), RATE).identified
        assert judge.version


@needs_fpcalc
def test_silence_is_no_song() -> None:
    judge = AcoustidJudge()
    judge.enrol({"silence": np.zeros(6 * RATE, np.float32)}, RATE)
    assert not judge.judge(np.zeros(5 * RATE, np.float32), RATE).identified
