"""The judge by audfprint2: against the package's own command line, and what it does to the rest of the process."""

import json
import logging
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.copyright_attack.judges import audfprint
from jobs.copyright_attack.judges.audfprint import AudfprintJudge
from service.errors import InputError
from tests.jobs.copyright_attack.judges.music import RATE, arrays, tone, tunes

ABSENT = AudfprintJudge().available()
needs_audfprint = pytest.mark.skipif(ABSENT is not None, reason=ABSENT or "")

# WAV files at its own rate are read without FFmpeg, which not every system has
COMMAND = (
    "import json, sys, audfprint2.utils.audio as audio; audio.HAVE_FFMPEG = False; from audfprint2.cli import main; "
    "[main(words) for words in json.loads(sys.argv[1])]"
)


def command_line(*commands: list[str], folder: Path) -> str:
    """What it prints, one command after another; in one process, which takes long to load."""
    words = [sys.executable, "-c", COMMAND, json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@needs_audfprint
def test_it_says_what_its_command_line_says(tmp_path: Path) -> None:
    songs, _ = tunes()
    judge = AudfprintJudge()
    judge.enrol(arrays(songs), RATE)
    for place, sound in enumerate(songs.sounds):
        soundfile.write(tmp_path / f"song{place}.wav", sound.numpy(), RATE, subtype="PCM_16")
    part = songs.sounds[1].numpy()[2 * RATE : 8 * RATE]
    noise = np.random.default_rng(0).normal(0, 0.01, len(part))
    query = np.round(32768 * (part + noise)).clip(-32768, 32767).astype(np.int16)
    soundfile.write(tmp_path / "query.wav", query, RATE)
    files = [f"song{place}.wav" for place in range(len(songs))]
    enrolment, question = ["-d", "songs.hdf", "new", *files], ["-v", "-d", "songs.hdf", "match", "query.wav"]
    said = command_line(enrolment, question, folder=tmp_path)
    match = re.search(r"Matched query.wav .* as song(\d).wav .* with +(\d+) of +\d+ common hashes", said)
    assert match is not None, said
    verdict = judge.judge(query / 32768, RATE)
    assert verdict.song == songs.names[int(match[1])] == songs.names[1]
    # the constant part of a sound is taken away here, and not there
    assert int(match[2]) > 15 and verdict.score == pytest.approx(int(match[2]), abs=2)


@needs_audfprint
def test_the_process_is_left_as_it_was() -> None:
    songs, _ = tunes()
    handlers, level, state = list(logging.getLogger().handlers), logging.getLogger().level, random.getstate()
    for name in ("hash_table", "analyzer", "matcher"):
        sys.modules.pop(f"audfprint2.core.{name}", None)
    judge = AudfprintJudge()
    judge.enrol(dict(list(arrays(songs).items())[:1]), RATE)
    judge.judge(songs.sounds[0].numpy(), RATE)
    assert logging.getLogger().handlers == handlers and logging.getLogger().level == level
    assert random.getstate() == state


@needs_audfprint
def test_a_full_bucket_drops_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audfprint, "DEPTH", 1)
    songs, _ = tunes()
    first, again = AudfprintJudge(), AudfprintJudge()
    for judge in (first, again):
        judge.enrol(arrays(songs), RATE)
        random.seed(id(judge))
    query = first.query(songs.sounds[3].numpy(), RATE)
    assert np.array_equal(first.scores(query), again.scores(query)) and first.scores(query)[3] > 0


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audfprint, "PACKAGE", "audfprint_that_is_not_there")
    reason = AudfprintJudge().available()
    assert reason is not None and reason.startswith("the judge audfprint needs the package") and "pip install" in reason
    with pytest.raises(InputError, match="needs the package"):
        AudfprintJudge().fingerprint(tone(440, 2.0), RATE)
