"""The handle that a job is given: rows, phases, warnings, sounds."""

import io
import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from service.errors import FieldError, InputError, StoreError
from service.execution import devices
from service.models import CardDraft
from service.run import Run, Trial
from service.spec import Resources
from service.store import open_store


@pytest.fixture
def handle(tmp_path: Path) -> Run:
    return Run(open_store(str(tmp_path)), seed=0)


def test_steps_never_go_back(handle: Run) -> None:
    assert handle.step == 0
    handle.log(step=3, loss=1.0)
    handle.log(step=handle.step, accuracy=0.5)
    assert handle.step == 3 and handle.metrics == {"loss": 1.0, "accuracy": 0.5}
    with pytest.raises(ValueError, match="must not be called 'trial'"):
        handle.log(step=3, trial=4.0)
    with pytest.raises(ValueError, match="step must be at least 3, the last one; it is 2"):
        handle.log(step=2)


def test_each_phase_has_a_state_of_its_own(handle: Run, tmp_path: Path) -> None:
    handle.log(step=1, detector=0.5)
    handle.checkpoint({"weights": [1, 2]}, phase="detector")
    handle.warn("the detector is small")
    handle.log(step=2, patch=0.25)
    handle.checkpoint({"pixels": [3]}, phase="patch")
    handle.log(step=3, patch=0.1)

    again = Run(open_store(str(tmp_path)), seed=0)
    assert again.restore("detector") == {"weights": [1, 2]} and again.step == 1
    assert again.restore("patch") == {"pixels": [3]} and again.step == 2, "rows after the checkpoint are taken back"
    assert list(again.written.warnings) == ["the detector is small"]
    assert again.restore("evaluation") is None and again.restore() is None
    with pytest.raises(InputError, match="phase must be .* digits and dashes; it is '../x'"):
        again.checkpoint({}, phase="../x")


def test_a_warning_counts_once(handle: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for sentence in ("one", "two", "one"):
        handle.warn(sentence)
    assert list(handle.written.warnings) == ["one", "two"]
    assert capsys.readouterr().out == "WARNING: one\nWARNING: two\n"


@pytest.mark.parametrize("taken_by", ["a file", "a link"])
def test_the_cache_is_a_folder_of_its_owner(
    taken_by: str, handle: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASSAY_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shared, elsewhere = tmp_path / f"assay-cache-{os.getuid()}", tmp_path / "elsewhere"
    assert handle.cache == shared and stat.S_IMODE(shared.stat().st_mode) == 0o700
    shared.rmdir()
    if taken_by == "a file":
        shared.touch()
    else:
        elsewhere.mkdir()
        shared.symlink_to(elsewhere)
    del handle.cache
    assert handle.cache != shared and stat.S_IMODE(handle.cache.stat().st_mode) == 0o700
    handle.cache.joinpath("data").touch()
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


def test_a_cache_of_ones_own(handle: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "deep" / "cache"))
    assert handle.cache == tmp_path / "deep" / "cache" and handle.cache.is_dir()
    del handle.cache
    (tmp_path / "file").touch()
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="ASSAY_CACHE must be a folder; .*file': File exists"):
        _ = handle.cache


@pytest.mark.parametrize("channels", [1, 2])
def test_a_sound_is_read_back(handle: Run, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (1000, channels)).astype(np.float32)
    handle.audio("noise", samples if channels > 1 else samples[:, 0], 22050)
    (artefact,) = handle.written.artefacts.values()
    assert (artefact.kind, artefact.path) == ("audio", "sounds/noise.wav")
    read, rate = soundfile.read(io.BytesIO(handle.folder.read(artefact.path)), always_2d=True)
    assert rate == 22050 and read == pytest.approx(samples, abs=2 / 2**15)


def test_sounds_that_are_none(handle: Run) -> None:
    with pytest.raises(InputError, match=r"samples must be float \(n,\) or \(n, channels\), they are int64 \(3,\)"):
        handle.audio("whole", np.array([1, 2, 3]), 8000)
    with pytest.raises(InputError, match="samples must be finite"):
        handle.audio("nan", np.array([0.0, np.nan]), 8000)
    for rate in (0, 1_000_001):
        with pytest.raises(InputError, match=f"rate must be from 1 to 1,000,000 samples a second; it is {rate:,}"):
            handle.audio("rate", np.zeros(3), rate)
    handle.audio("loud", np.array([0.0, 1.5]), 8000)
    assert list(handle.written.warnings) == [
        "audio 'loud': samples must be within [-1, 1]; the largest is 1.5, it is clipped"
    ]


def test_a_column_that_the_first_row_lacks_is_kept(handle: Run) -> None:
    handle.table("results", [{"trial": "a", "fgsm": 0.5}, {"trial": "b", "pgd": 0.25}])
    assert handle.folder.read_table("tables/results.parquet").to_pylist() == [
        {"trial": "a", "fgsm": 0.5, "pgd": None},
        {"trial": "b", "fgsm": None, "pgd": 0.25},
    ]


def test_a_gpu_that_a_spec_does_not_ask_for_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.unused_gpus(0) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H200")
    assert devices.unused_gpus(0) == "the spec asks for no GPU, and this machine has H200: resources.gpus=1 uses one"
    assert devices.unused_gpus(0.5) is None


def test_a_model_is_not_saved_under_a_name_that_the_store_refuses(handle: Run) -> None:
    draft = CardDraft(
        architecture="tests.service.walk:linear",
        arguments={"size": 1},
        study="walk",
        task="walking",
        inputs=(),
        outputs=(),
        settings={},
        metrics={},
        description="",
    )
    with pytest.raises(FieldError, match="the name of a model must be up to 63 .*; it is 'My Model'"):
        handle.save_model("My Model", torch.nn.Linear(1, 1), draft)
    assert not handle.written.artefacts


def test_dollar_signs_in_names_need_not_be_formulas(handle: Run) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.bar(["US$", "a$x_{$", "$"], [1, 10, 1000], label="$_{$")
    axes.set(yscale="log", title=r"$\epsilon$", xlabel="$^$ and $")
    axes.legend()
    handle.figure("bars", figure)
    assert handle.folder.exists("figures/bars.png")
    assert axes.title.get_parse_math() and not axes.xaxis.label.get_parse_math()
    assert r"$\mathdefault{10^{2}}$" in [label.get_text() for label in axes.get_yticklabels() if label.get_parse_math()]


@pytest.mark.parametrize("damage", [b"", b"no array", b"cut"])
def test_a_damaged_array_of_a_trial_is_one_sentence(handle: Run, tmp_path: Path, damage: bytes) -> None:
    handle.array("weights", np.arange(100.0))
    path = tmp_path / "tables" / "weights.npy"
    trial = Trial(
        handle.folder,
        id="000",
        label="walk",
        variant=None,
        seed=0,
        overrides={},
        params=Resources(),
        status="finished",
        metrics={},
        best=True,
    )
    assert trial.array("weights").sum() == 4950
    path.write_bytes(path.read_bytes()[:-8] if damage == b"cut" else damage)
    with pytest.raises(StoreError, match=r"tables/weights.npy is damaged: ."):
        trial.array("weights")
