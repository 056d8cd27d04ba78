"""The report: one file that needs nothing else and that no label can break."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import torchaudio

from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.report.rendering import Link, Picture, ReportPage, Sound, Table, render, value_text
from service.report.spectrogram import band_of, log_mel

HOSTILE = "<script>alert('x')</script>\"&"


class Tags(HTMLParser):
    """The tags of a page, and everything that it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def page(**changes: object) -> ReportPage:
    fields: dict[str, object] = {
        "title": HOSTILE,
        "run_id": HOSTILE,
        "status": "partial",
        "spec_yaml": f"name: {HOSTILE}\n",
        "facts": [("job", HOSTILE)],
        "figures": [Picture(HOSTILE, HOSTILE, HOSTILE, "image/png", b"\x89PNG")],
        "sounds": [Sound(HOSTILE, HOSTILE, HOSTILE, "audio/wav", b"RIFF", b"\x89PNG", 1.0)],
        "warnings": [HOSTILE],
        "tables": [Table(HOSTILE, HOSTILE, [HOSTILE, "n"], [[HOSTILE, 0.123456], [None, True]])],
        "links": [Link(HOSTILE, f"javascript:{HOSTILE}", HOSTILE)],
        "trials": [
            (HOSTILE, "finished", True, "3 s", {"height": 1 / 3, HOSTILE: 2.0}),
            ("b", "failed", False, "1 s", {}),
        ],
        "errors": [(HOSTILE, HOSTILE, f"Traceback {HOSTILE}")],
        "provenance": {"cpu": HOSTILE, "packages": {"torch": "2"}},
    }
    return ReportPage(**{**fields, **changes})  # type: ignore[arg-type]


def test_nothing_is_loaded_and_nothing_is_run() -> None:
    tags = Tags(render(page()).decode())
    assert "script" not in tags.tags and "iframe" not in tags.tags
    picture, sound, spectrogram, link = tags.loads
    assert sound.startswith("data:audio/wav;base64,") and spectrogram.startswith("data:image/png;base64,")
    assert picture.startswith("data:image/png;base64,")
    assert link.startswith("./javascript%3A%3Cscript%3E"), "a link leads to a file below the page, whatever its name"
    assert tags.text.count(HOSTILE) >= 12, "labels are shown as they are"


def test_pages_and_files_lie_beside_the_report_and_are_linked(store_uri: str) -> None:
    """Those of the summary and of the best trial; they are not put into it."""
    job_spec = spec.build({"job": "tests.service.pages", "store": store_uri})
    state = runner.start(job_spec, Execution(serial=True))
    assert state.status == "finished", state.failure
    folder = Path(store_uri) / "runs" / state.id
    tags = Tags((folder / "report.html").read_text())
    linked = [folder / unquote(each) for each in tags.loads if not each.startswith("data:")]
    contents = {each.name: each.read_bytes() for each in linked}
    assert contents == {
        "all.h5": bytes(2_000_000),
        "turn it.html": "<!doctype html><title>ä</title>".encode(),
        "surface.vtp": b"<VTKFile/>",
    }
    assert "Everything h5, 2,000,000 bytes" in tags.text and "A surface <to turn>" in tags.text
    assert "surface" in tags.text and "vtp, 10 bytes" in tags.text
    picture, sound, spectrogram = [each for each in tags.loads if each.startswith("data:")]
    assert picture.startswith("data:image/png;base64,")
    assert "The grey of all trials" in tags.text and "All grey" not in tags.text, "what the summary shows as well"
    assert sound.startswith("data:audio/wav;base64,") and spectrogram.startswith("data:image/png;base64,")
    assert "A tone <of 440 Hz>, 0.5 s" in " ".join(tags.text.split()).replace(" (tests-service-pages)", "")
    assert "the tone is not music <yet>" in tags.text
    assert "in batches of <8>" in tags.text
    kinds = {each.path.rpartition("/")[2]: (each.kind, each.bytes) for each in state.artefacts}
    assert kinds["turn it.html"] == ("page", 32) and kinds["all.h5"] == ("file", 2_000_000)


@pytest.mark.parametrize(("hertz", "rate"), [(440.0, 16000), (3000.0, 44100), (200.0, 8000)])
def test_a_tone_is_one_line_of_its_spectrogram(hertz: float, rate: int) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    values, seconds = log_mel(tone, rate)
    assert values.shape[1] == pytest.approx(1 / seconds, abs=2)
    assert set(values[:, 5:-5].argmax(axis=0)) <= {int(band_of(hertz, rate)), int(band_of(hertz, rate)) + 1}


@pytest.mark.parametrize("length", [1, 100])
def test_a_sound_shorter_than_a_window_has_a_spectrogram(length: int) -> None:
    values, _ = log_mel(np.ones(length), 8000)
    assert np.isfinite(values).all() and values.shape[1] >= 1


def test_the_spectrogram_is_torchaudios() -> None:
    """In decibels, of the mel spectrogram that torchaudio computes in one step."""
    noise = np.random.default_rng(0).normal(size=16000) / 10
    mel = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=1024, win_length=400, hop_length=160, n_mels=64, norm="slaney", mel_scale="slaney"
    )
    decibels = torchaudio.transforms.AmplitudeToDB(top_db=None)(mel(torch.from_numpy(noise).float())).numpy()
    assert log_mel(noise, 16000)[0] == pytest.approx(np.maximum(decibels - decibels.max(), -80), abs=1e-3)


def test_the_numbers_are_there() -> None:
    text = Tags(render(page()).decode()).text
    for shown in ("0.3333", "0.1235", "finished", "failed", "Some trials or cells failed"):
        assert shown in text


def test_a_run_that_has_nothing_yet() -> None:
    empty = page(figures=[], tables=[], links=[], trials=[], errors=[], facts=[], provenance={}, status="running")
    assert b"going on" in render(empty)


def test_values() -> None:
    values = [None, True, False, 1.0, 1 / 3, 1e-9, float("nan"), 12_345, "x"]
    assert [value_text(each) for each in values] == ["", "yes", "", "1", "0.3333", "1e-09", "nan", "12345", "x"]
