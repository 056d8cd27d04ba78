"""The whole study on tones: what comes out, kill and resume, Ray, and what cannot work."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.common.audio.files import read
from jobs.common.audio.networks.base import log_mel_of
from jobs.sonification import inversion, responses, results, sonification
from jobs.sonification.estimation import estimate
from jobs.sonification.job import run, summarize
from jobs.sonification.params import Params
from jobs.sonification.responses import mean_mels, responses_of
from service import models
from service.errors import AssayError, InputError, RunFailedError, SpecError
from service.execution.checkpoints import decode
from service.planning.validation import validate
from service.run import Run, Trial
from service.store import open_store
from tests.jobs.elsewhere import check_elsewhere, check_ray
from tests.jobs.sonification.tones import CLASSES, RATE, SMALL, SOURCE, network

HERE = "tests.jobs.sonification.tones"
TRAINED = {"kind": "train", "recogniser": SMALL, "training": {"epochs": 6, "batch": 10}}
FEW = {"seconds": 0.25, "count": 2, "ascent": {"steps": 8}}


def params(**changes: Any) -> Params:
    basis = {"data": SOURCE, "network": TRAINED, "sonifications": {"channels": FEW}, "examples": 1}
    return validate(Params, {**basis, **changes}, "params")


WHOLE: dict[str, Any] = {
    "sonifications": {
        "channels": {**FEW, "batch": 1},
        "words": {"objective": {"kind": "class"}, "seconds": 0.25, "ascent": {"steps": 30}},
        "towards": {"objective": {"kind": "direction"}, "classes": ["high"], "layers": ["conv2"], **FEW},
        "dream": {"objective": {"kind": "layer"}, "layers": ["conv1"], "clip": 3, "ascent": {"steps": 5, "copies": 2}},
    },
    "inversion": {"clips": 2, "start": ["noise", "other_voice"], "steps": 60, "step_size": 0.01},
    "probes": {},
}


def test_one_spec_trains_makes_audible_inverts_and_probes(make_run: Any, tmp_path: Any) -> None:
    handle = make_run()
    run(params(**WHOLE), handle)
    metrics = handle.metrics
    assert metrics["test_accuracy"] >= 0.9
    channels = handle.folder.read_table("tables/channels.parquet").to_pylist()
    assert [(row["layer"], row["of"]) for row in channels] == [(f"conv{k}", 8) for k in (1, 1, 2, 2)]
    assert all(row["final"] > row["start"] and 1 <= row["rank"] <= 8 for row in channels)
    words = handle.folder.read_table("tables/words.parquet").to_pylist()
    assert [row["name"] for row in words] == list(CLASSES) and all(row["final"] > row["start"] for row in words)
    (towards,) = handle.folder.read_table("tables/towards.parquet").to_pylist()
    assert towards["name"] == "high" and towards["of"] == 3 and towards["final"] > towards["start"]
    dream = handle.folder.read_table("tables/dream.parquet").to_pylist()
    assert len(dream) == 2 and dream[0]["rank"] is None
    examples = {path for path in handle.written.artefacts if path.endswith(("_examples.parquet", "-example.wav"))}
    assert "tables/channels_examples.parquet" in examples
    assert all("/channels" in path for path in examples), "classes and whole layers are no channels"

    # what is said of a sound is true of the sound in the file
    row = channels[0]
    sound = read_sound(handle, f"channels-{row['layer']}-{row['number']}")
    network, shared = staged(handle), row["layer"]
    known = handle.folder.read_table("tables/layers.parquet").to_pylist()
    assert {each["layer"] for each in known} == set(network.layers)
    with torch.no_grad():
        answers = network.activations(sound[None], [shared])[shared]
    assert answers.shape[1] == row["of"]

    inverted = handle.folder.read_table("tables/inversions.parquet").to_pylist()
    assert len(inverted) == 2 * 2 * 3
    assert all(each["mel_error"] < each["start_error"] for each in inverted if each["layer"] == "mel")
    shallow, deep = (metrics[f"inversion_error_{layer}"] for layer in ("mel", "conv2"))
    assert shallow < deep, "what is deep says less of the clip"
    probes = {
        (row["layer"], row["target"]): row for row in handle.folder.read_table("tables/probes.parquet").to_pylist()
    }
    assert {target for _, target in probes} == {"class", "fundamental", "voice", "pitch"}
    assert probes["conv2", "class"]["score"] > 0.9 and probes["conv1", "voice"]["score"] > 0.7  # one of two
    for path in ("figures/depth.png", "figures/channels.png", "figures/inversions.png", "figures/dream_ascent.png"):
        assert handle.folder.exists(path)

    # the saved model is the same network, and is listened to without training
    store = open_store(str(tmp_path / "store"))
    kept = decode(handle.folder.read(f"models/{name_of_model(handle)}.safetensors"))
    models.publish(store, "net", kept["weights"], models.CardDraft(**kept["draft"]))
    clips, _ = params().data.load_splits()
    with torch.no_grad():
        answers = network.activations(clips.sounds(torch.arange(len(clips))), network.layers)
    settings = kept["draft"]["settings"]
    assert list(settings["layers"]) == list(network.layers) and len(settings["mean_mel"]) == 16
    for layer, units in settings["layers"].items():
        assert units["mean"] == pytest.approx(answers[layer].mean((0, 2)).tolist(), abs=1e-3)
        assert units["spread"] == pytest.approx(answers[layer].std((0, 2), correction=0).tolist(), rel=1e-3)
    stored = params(**{**WHOLE, "network": {"kind": "model", "name": "net"}, "inversion": None, "probes": None})
    again = Run(open_store(str(tmp_path)) / "again", 0, store=store)
    run(stored, again)
    assert again.metrics["test_accuracy"] == metrics["test_accuracy"]
    assert again.folder.read_table("tables/channels.parquet").to_pylist() == channels

    handle.flush()
    trial = Trial(
        handle.folder, id="a", label="a", variant="a", seed=0, overrides={}, params=params(**WHOLE), status="finished",
        metrics=metrics, best=True,
    )  # fmt: skip
    whole = make_run("whole")
    summarize([trial], whole)
    assert whole.folder.exists("figures/depth_a.png")


def test_a_killed_run_goes_on_with_the_cells_that_are_left(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = params(sonifications={"channels": {**FEW, "batch": 1}})
    undisturbed = make_run("undisturbed")
    run(spec, undisturbed)
    calls = []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ascend(*arguments)

    ascend = sonification.ascend
    monkeypatch.setattr(sonification, "ascend", dying)
    with pytest.raises(KeyboardInterrupt):
        run(spec, make_run("killed"))
    resumed = make_run("killed")
    run(spec, resumed)
    assert 3 + 2 <= len(calls) < 3 + 4, "cells that were there are not computed again"
    assert resumed.metrics == undisturbed.metrics
    tables = [each.folder.read("tables/channels.parquet") for each in (undisturbed, resumed)]
    assert tables[0] == tables[1]


def test_a_dead_channel_is_said_and_not_optimised(make_run: Any) -> None:
    handle = make_run()
    run(
        params(network={"kind": "model", "name": f"{HERE}:dead"}, sonifications={"channels": {**FEW, "count": None}}),
        handle,
    )
    rows = handle.folder.read_table("tables/channels.parquet").to_pylist()
    dead = [row for row in rows if row["state"].startswith("dead")]
    assert [(row["layer"], row["number"]) for row in dead] == [("conv1", 2)]
    assert handle.metrics["dead_channels"] == 1 and not handle.folder.exists("sounds/channels-conv1-2.wav")


def first_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every map of a run the first cell raises twice."""
    whole = run.map
    monkeypatch.setattr(run, "map", lambda *given, **named: [None, *whole(*given, **named)[1:]])


def test_clips_whose_answers_failed_end_the_run(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them the answers to all later ones would be taken for those to earlier ones."""
    monkeypatch.setattr(responses, "SLICE", 16)
    clips, _ = params().data.load_splits()
    handle = make_run()
    assert len(responses_of(network(), clips, handle, "whole")["mel"].means) == len(clips)
    first_fails(handle, monkeypatch)
    with pytest.raises(RunFailedError, match="answers of the network to some clips failed"):
        responses_of(network(), clips, handle, "some")


def test_inversions_that_failed_are_left_out(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first layer there are only those from the second start, which no metric is of."""
    handle = make_run()
    first_fails(handle, monkeypatch)
    spec = params(sonifications={}, inversion={"clips": 1, "start": ["noise", "other_voice"], "steps": 1})
    assert spec.inversion is not None
    test = spec.data.load("test")
    known, mel = responses_of(network(), test, make_run("whole"), "whole"), log_mel_of(network())
    shared = inversion.shared_of(spec.inversion, network(), known, mel, mean_mels(mel, test), test)
    rows = inversion.rows_of(inversion.invert(shared, handle), test, tuple(CLASSES))
    assert [(row["layer"], row["start"]) for row in rows][:2] == [("mel", "other_voice"), ("conv1", "noise")]
    metrics = results.metrics_of_inversions(rows, "noise", network())
    assert {"inversion_error_conv1", "inversion_error_conv2"} <= set(metrics) and "inversion_error_mel" not in metrics


EACH: dict[str, Any] = {"sonifications": {"channels": {**FEW, "batch": 1}}}


def test_cells_that_are_computed_elsewhere_give_the_same(make_run: Any) -> None:
    """The short form of the next test: no process is started."""
    check_elsewhere(run, params(**EACH), make_run, ("channels.parquet", "channels_examples.parquet"))


@pytest.mark.slow
def test_ray_gives_what_a_serial_run_gives(ray_session: None, tmp_path: Path) -> None:
    check_ray(
        "sonification",
        {"data": SOURCE, "network": {"kind": "model", "name": f"{HERE}:network"}, **EACH},
        tmp_path,
        ("channels.parquet", "channels_examples.parquet"),
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sonifications": {"a": {"layers": ["conv9"]}}}, "no layer 'conv9'.*mel, conv1, conv2, output"),
        ({"sonifications": {"a": {**FEW, "channels": [8]}}}, r"sonifications.a.channels must be from 0 to 7"),
        ({"sonifications": {"a": {**FEW, "clip": 30}}}, r"sonifications.a.clip must be below 30"),
        ({"sonifications": {"a": {**FEW, "seconds": 0.005}}}, "a sound must last at least"),
        ({"sonifications": {"a": {"objective": {"kind": "class"}, "classes": ["hi"]}}}, "unknown class 'hi'"),
        ({"sonifications": {"a": {"objective": {"kind": "class"}, "layers": ["conv1"]}}}, "layers must be output"),
        ({"inversion": {"clips": 31}}, "inversion.clips must be at most 30"),
        ({"inversion": {"layers": ["conv9"]}}, "no layer 'conv9'"),
        ({"probes": {"targets": ["mood"]}}, "unknown target of a probe 'mood'"),
        ({"network": {"kind": "model", "name": f"{HERE}:deaf"}}, "'front' has no gradient"),
        ({"network": {"kind": "model", "name": f"{HERE}:plain"}}, "must be a SoundNetwork"),
        ({"network": {"kind": "model", "name": f"{HERE}:other_rate"}}, "data.rate must be 16,000"),
        (
            {
                "network": {"kind": "model", "name": f"{HERE}:without_mels"},
                "sonifications": {
                    "a": {**FEW, "layers": ["filter"], "ascent": {"parameterisation": {"kind": "log_mel"}}}
                },
            },
            "begins with 'filter'",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_computed(
    make_run: Any, changes: dict[str, Any], sentence: str
) -> None:
    handle = make_run()
    with pytest.raises(InputError, match=sentence):
        run(params(**changes), handle)
    assert not handle.rows and not handle.folder.exists("checkpoints")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"sonifications": {"a": {"objective": {"kind": "layer"}, "channels": [1]}}},
            "an objective of kind layer has none",
        ),
        ({"sonifications": {"a": {"classes": ["low"]}}}, "an objective of kind channel has none"),
        ({"sonifications": {"a": {"ascent": {"regularisation": {"closeness": 1.0}}}}}, "there is none"),
        ({"sonifications": {"A b": {}}}, "sonifications"),
        ({"data": {**SOURCE, "speech": {"words": ["one"]}}}, "words"),
    ],
)
def test_specs_that_cannot_work(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        params(**changes)


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("sonifications.a.channels", [1, 0, 1]),
        ("sonifications.a.layers", ["conv1", "conv1"]),
        ("inversion.start", ["noise", "noise"]),
        ("probes.targets", ["class", "class"]),
        ("judgement.judges", ["pitch", "pitch"]),
    ],
)
def test_names_are_said_once_each(field: str, names: list[Any]) -> None:
    section: Any = names
    for part in reversed(field.split(".")):
        section = {part: section}
    with pytest.raises(SpecError, match=f"{field} must name each once; it is"):
        params(**section)


@pytest.mark.parametrize("name", ["closeness", "high_frequencies"])
def test_log_mels_have_no_samples_to_penalise(name: str) -> None:
    ascent = {"parameterisation": {"kind": "log_mel"}, "regularisation": {name: 2.0}}
    sentence = f"sonifications.a.ascent.regularisation.{name} must be 0 with the parameterisation log_mel.*it is 2"
    with pytest.raises(SpecError, match=sentence):
        params(sonifications={"a": {"clip": 0, "ascent": ascent}})


def test_log_mels_have_no_samples_to_add_noise_to() -> None:
    ascent = {"parameterisation": {"kind": "log_mel"}, "transformations": {"noise": 0.5}}
    sentence = "sonifications.a.ascent.transformations.noise must be left out with the parameterisation log_mel.*is 0.5"
    with pytest.raises(SpecError, match=sentence):
        params(sonifications={"a": {"ascent": ascent}})
    for noise in ({}, {"noise": 0.0}):
        params(sonifications={"a": {"ascent": {**ascent, "transformations": noise}}})


def test_what_it_costs_is_counted() -> None:
    cost = estimate(params(**{**WHOLE, "sonifications": {"channels": {**FEW, "batch": 1}}}))
    assert cost.details["sounds of channels"] == 4 and cost.pieces == 5 and cost.details["inversions"] == 12
    assert cost.core_seconds is not None and cost.core_seconds > 0
    with pytest.raises(AssayError):
        estimate(params(sonifications={"a": {"layers": ["conv9"]}}))
    unknown = estimate(params(network={"kind": "model", "name": "net"}))
    assert unknown.core_seconds is None


def read_sound(handle: Any, name: str) -> torch.Tensor:
    import io

    return read(io.BytesIO(handle.folder.read(f"sounds/{name}.wav")), name).samples


def name_of_model(handle: Any) -> str:
    (path,) = (path for path in handle.written.artefacts if path.startswith("models/"))
    return str(path).removeprefix("models/").removesuffix(".safetensors")


def staged(handle: Any) -> Any:
    from jobs.common.audio.networks import ARCHITECTURES

    kept = decode(handle.folder.read(f"models/{name_of_model(handle)}.safetensors"))
    network = ARCHITECTURES["recogniser"](**kept["draft"]["arguments"])
    network.load_state_dict(kept["weights"])
    assert network.rate == RATE
    return network.eval()
