"""Sounds for features of a recogniser, as an endpoint makes them: what is said of them, and what is refused."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from jobs.common.audio.levels import PEAK, RMS
from jobs.sonification.optimisation.edges import inside
from service.errors import BusyError, InputError
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest
from serving.http.settings import Attacks, Sonification
from serving.kinds.sonification.options import OBJECTIVES, PARAMETERISATIONS
from serving.kinds.sonification.work import SonificationWork
from serving.kinds.work import Abandoned
from tests.jobs.sonification.tones import CLASSES, RATE, without_mels
from tests.serving.kinds.test_sound_classification import MODEL, NETWORK, encoded, endpoint, tone
from tests.serving.models import SAMPLES, layers_of_recogniser, recogniser_settings

FEW: dict[str, Any] = {"layer": "conv2", "channel": 5, "steps": 12, "seconds": 0.25}
NO_ATTACKS = Attacks(enabled=False)
LIMITS = Sonification(sound_seconds=1.5, steps=100, gmacs=5)
CLIP = tone()[None]
CHANNELS = {name: len(units["mean"]) for name, units in layers_of_recogniser().items()}


def prepared(
    inputs: dict[str, np.ndarray] | None = None, form: Form = TENSORS, model: Any = MODEL, **parameters: Any
) -> SonificationWork:
    request = InferRequest("", inputs or {}, {**FEW, **parameters}, None, False)
    request = replace(request, parameters={name: value for name, value in request.parameters.items() if value != ""})
    work = model.prepare_sonification(request, form, LIMITS)
    assert isinstance(work, SonificationWork)
    return work


def sonified(inputs: dict[str, np.ndarray] | None = None, **parameters: Any) -> dict[str, np.ndarray]:
    return dict(prepared(inputs, **parameters).compute(lambda: False).answer)


def activations(sounds: np.ndarray, layer: str) -> torch.Tensor:
    """Of the frames that see nothing but the sound, in standard deviations, as the card has them."""
    units = layers_of_recogniser()[layer]
    mean, spread = (torch.tensor(units[name])[:, None] for name in ("mean", "spread"))
    with torch.no_grad():
        answers = NETWORK.activations(torch.tensor(sounds), [layer])[layer]
    return (answers[:, :, inside(NETWORK, layer, sounds.shape[1]).frames] - mean) / spread


def test_the_activation_is_that_of_the_sound_in_the_file() -> None:
    """The WAV itself, decoded, through the whole network; its place among the channels by brute force."""
    work = prepared(form=Form(wav=True))
    answer = work.compute(lambda: False).answer
    assert work.rendering is not None and work.rendering.media_type == "audio/wav"
    decoded, rate = soundfile.read(io.BytesIO(work.rendering.encode(answer)), dtype="float32")
    assert rate == RATE and len(decoded) == RATE // 4
    means = activations(decoded[None], "conv2")[0].mean(1)
    assert float(answer["final"][0]) == pytest.approx(float(means[5]), abs=1e-2)
    assert answer["final"][0] > answer["start"][0]
    assert answer["rank"].tolist() == [1 + int((means > means[5]).sum())] and answer["features"].tolist() == [8]
    assert answer["curve"][0].mean() == pytest.approx(answer["final"][0], abs=1e-5)
    assert answer["history"].shape == (1, 12) and not answer["dead"][0]
    assert np.sqrt(np.mean(decoded**2)) <= RMS * 1.001 and np.abs(decoded).max() <= PEAK + 1e-3
    with torch.no_grad():
        logits = NETWORK(torch.tensor(answer["sounds"]))
        np.testing.assert_allclose(answer["log_mel"], NETWORK.stages["mel"](torch.tensor(answer["sounds"])))
    assert answer["prediction"].tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(answer["probabilities"], logits.softmax(1), atol=1e-6)


def test_every_objective_is_raised_and_is_what_it_says() -> None:
    answer = sonified(objective="neuron", shift=0.0, speed=0.0)
    row = activations(answer["sounds"], "conv2")[0, 5]
    assert answer["final"][0] == pytest.approx(float(row[len(row) // 2]), abs=1e-4)
    answers = {
        "neuron": answer,
        "layer": sonified(objective="layer", channel=""),
        "class": sonified(**{"class": "high"}, layer="", channel="", steps=30),
        "direction": sonified({"direction": np.eye(8, dtype=np.float32)[3] * 7}, objective="direction", channel=""),
    }
    assert {"channel", *answers} == set(OBJECTIVES)
    assert all(each["final"][0] > each["start"][0] for each in answers.values())
    squares = activations(answers["layer"]["sounds"], "conv2").square().mean()
    assert answers["layer"]["final"][0] == pytest.approx(float(squares), rel=1e-4) and answers["layer"]["rank"][0] == 0
    assert answers["class"]["final"][0] == pytest.approx(np.log(answers["class"]["probabilities"][0, 2]), abs=1e-4)
    assert answers["class"]["features"][0] == 3
    channel = activations(answers["direction"]["sounds"], "conv2")[0, 3].mean()
    assert answers["direction"]["final"][0] == pytest.approx(float(channel), abs=1e-4)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_seeds_decide_and_all_parameters_are_said(kind: str) -> None:
    work = prepared(parameterisation=kind, seed=3, copies=2)
    answer = work.compute(lambda: False).answer
    again = prepared(**{**FEW, **work.parameters})  # what is said asks for the same
    np.testing.assert_array_equal(again.compute(lambda: False).answer["sounds"], answer["sounds"])
    other = sonified(parameterisation=kind, seed=4, copies=2)
    assert not np.array_equal(other["sounds"], answer["sounds"])
    assert answer["sounds"].shape == (2, RATE // 4) and not np.array_equal(*answer["sounds"])
    assert {"steps": 12, "seed": 3, "closeness": 0.0, "shift": 0.025}.items() <= work.parameters.items()


def test_a_clip_that_is_sent_is_what_it_begins_with() -> None:
    free, kept = (
        sonified({"sounds": CLIP}, seconds="", step_size=2e-3, steps=40, closeness=closeness)
        for closeness in (0.0, 1000.0)
    )
    begun = sonified({"sounds": CLIP}, seconds="", steps=0)
    scaled = CLIP[0] * RMS / np.sqrt(np.mean(CLIP**2))
    np.testing.assert_allclose(begun["sounds"][0], scaled, atol=1e-3)
    distances = [float(np.mean((each["sounds"] - begun["sounds"]) ** 2)) for each in (free, kept)]
    assert free["final"][0] > begun["final"][0] and distances[1] < distances[0] / 2
    clipped = prepared({"sounds": np.clip(2 * CLIP, -0.5, 0.5)}, seconds="", steps=1).compute(lambda: False)
    assert "is clipped" in clipped.warnings[0]


@pytest.mark.parametrize("weights", [{"smoothness": 1e38}, {"copies": 2, "diversity": 1e300}])
def test_weights_beyond_all_numbers_are_the_clients_mistake(weights: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"such weights: '{list(weights)[-1]}' must be smaller"):
        sonified(**weights)


def test_a_dead_channel_is_told_and_not_optimised() -> None:
    attacked = prepared(layer="conv1", channel=2, steps=100).compute(lambda: False)
    assert attacked.answer["dead"].tolist() == [True] and "is dead: no clip excites it" in attacked.warnings[0]
    assert attacked.answer["queries"].tolist() == [5] and attacked.answer["history"].shape == (1, 0)


@pytest.mark.parametrize(
    ("inputs", "parameters", "sentence"),
    [
        ({}, {"layer": "conv3"}, r"no layer 'conv3' \(did you mean 'conv2'"),
        ({}, {"layer": 7}, "no layer '7'"),
        ({}, {"layer": ""}, "'layer' is missing"),
        ({}, {"channel": ""}, "'channel' is missing"),
        ({}, {"channel": 8}, r"'channel' must be a whole number from 0 to 7, those of 'conv2'; it is 8 \(.*is 7\)"),
        ({}, {"channel": -1}, "the nearest is 0"),
        ({}, {"channel": 1.5}, "must be a whole number from 0 to 7"),
        ({}, {"channel": True}, "must be a whole number"),
        ({}, {"class": "hi", "layer": "", "channel": ""}, r"no class 'hi' \(did you mean 'high'"),
        ({}, {"class": "high"}, "'layer' is not for the objective 'class'"),
        ({}, {"objective": "chanel"}, "did you mean 'channel'"),
        ({}, {"parameterisation": "wave"}, "did you mean 'waveform'"),
        ({}, {"objective": "direction", "channel": ""}, "'direction' is missing"),
        ({"direction": np.ones(5, np.float32)}, {"objective": "direction", "channel": ""}, "must have 8 numbers"),
        ({"direction": np.zeros(8, np.float32)}, {"objective": "direction", "channel": ""}, "that is not 0"),
        ({"direction": np.ones(8, np.float32)}, {}, "is for the objective 'direction'"),
        ({"sound": CLIP}, {}, "did you mean 'sounds'"),
        ({"sounds": np.repeat(CLIP, 2, 0)}, {"seconds": ""}, r"shape must be \[1, -1\]"),
        ({"sounds": (CLIP * 1000).astype(np.int64)}, {"seconds": ""}, "datatype must be FP32; it is INT64"),
        ({"sounds": CLIP * 3}, {"seconds": ""}, r"samples must be in \[-1, 1\]"),
        ({"sounds": CLIP[:, :100]}, {"seconds": ""}, "samples; it has 100"),
        ({"sounds": np.zeros((1, 70 * RATE), np.float32)}, {"seconds": ""}, "samples; it has 560,000"),
        ({"sounds": np.zeros_like(CLIP)}, {"seconds": ""}, "is silent above 50 Hz"),
        ({"sounds": np.full_like(CLIP, 0.5)}, {"seconds": ""}, "is silent above 50 Hz"),
        ({"sounds": CLIP}, {}, "'seconds' is of a sound that begins with noise"),
        ({}, {"seconds": 0.01}, "a sound must last at least"),
        ({}, {"seconds": 1.6}, "at most 1.5 s together .sonification.sound_seconds.; they last 1.6"),
        ({}, {"copies": 7}, "they last 1.75"),
        ({}, {"steps": 101}, "'steps' must be at most 100 .sonification.steps.; it is 101"),
        ({}, {"steps": -1}, "parameters.steps must be at least 0"),
        ({}, {"steps": "many"}, "parameters.steps must be a whole number"),
        ({}, {"step_size": float("inf")}, "step_size"),
        ({}, {"seed": -1}, "parameters.seed must be at least 0"),
        ({}, {"stepz": 3}, "did you mean 'steps'"),
        ({}, {"power": 1.0}, "unknown parameter 'power'"),
        ({}, {"closeness": 1.0}, "there is none"),
        ({}, {"parameterisation": "log_mel", "high_frequencies": 1.0}, "high_frequencies must be 0 with .* log_mel"),
        ({}, {"layer": "mel", "parameterisation": "log_mel"}, "'mel' answers is itself optimised"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(inputs: Any, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        prepared(inputs, **parameters)


def test_a_budget_beyond_the_limits_is_refused() -> None:
    work = prepared(steps=100)
    assert work.cost.passes == 206 and work.cost.gmacs == pytest.approx(206 * work.cost.gmacs_of_pass)
    small = replace(work, limits=Sonification(gmacs=work.cost.gmacs * 0.99))
    with pytest.raises(InputError, match="sonify must take at most .* billion multiplications .sonification.gmacs."):
        small.check()
    with pytest.raises(InputError, match="the answer for one sound, not for 2"):
        prepared(form=Form(png=True), copies=2)
    with pytest.raises(BusyError, match="must end within 1e-09 s"):
        replace(work, limits=Sonification(seconds=1e-9)).compute(lambda: False)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_nobody_waits_and_it_stops_before_the_next_pass(kind: str) -> None:
    calls = []

    def stopped() -> bool:
        calls.append(1)
        return len(calls) == 5

    with pytest.raises(Abandoned):
        prepared(parameterisation=kind).compute(stopped)
    assert len(calls) == 5


def test_the_spectrogram_is_a_picture() -> None:
    work = prepared(form=Form(png=True), steps=1)
    assert work.rendering is not None
    picture = work.rendering.encode(work.compute(lambda: False).answer)
    assert work.rendering.media_type == "image/png" and Image.open(io.BytesIO(picture)).format == "PNG"


def test_the_metadata_names_layers_and_parameters() -> None:
    said = MODEL.sonification_of(MODEL.card, LIMITS)
    assert said["layers"] == CHANNELS == {"mel": 16, "conv1": 8, "conv2": 8, "output": 3}
    assert said["parameters"]["steps"]["maximum"] == 100 and said["parameters"]["seconds"]["maximum"] == 1.5
    for schemas in (said, *said["objectives"].values(), *said["parameterisations"].values()):
        for name, schema in schemas["parameters"].items():
            assert schema["description"] and "default" in schema, name
    assert {name for name, each in said["objectives"].items() if each["inputs"]} == {"direction"}
    silent = endpoint(settings={**recogniser_settings(), "layers": {}})
    assert silent.actions_of(silent.card) == ("infer",) and MODEL.actions_of(MODEL.card) == ("infer", "sonify")


def test_uploads_are_read_as_for_inference() -> None:
    """Stereo, of another rate, of whole numbers: the clip of the evaluation's length that inference gets."""
    assert MODEL.upload is not None
    stereo = encoded(np.stack([tone(2 * SAMPLES, 2 * RATE)] * 2, 1), 2 * RATE, subtype="PCM_24")
    answer = sonified({"sounds": MODEL.upload.read(stereo)}, seconds="", steps=0)
    np.testing.assert_allclose(answer["sounds"], MODEL.upload.read(stereo), atol=1e-3)


def test_networks_without_a_spectrogram_in_front() -> None:
    net = without_mels()
    layers = {name: {"mean": [0.0] * count, "spread": [1.0] * count} for name, count in (("filter", 4), ("output", 3))}
    settings = {"classes": list(CLASSES), "rate": RATE, "samples": SAMPLES, "layers": layers, "mean_mel": [-5.0] * 64}
    model = endpoint(net, settings=settings)
    answer = prepared(model=model, layer="filter", channel=1).compute(lambda: False).answer
    assert answer["final"][0] > answer["start"][0]
    with pytest.raises(InputError, match="begins with 'filter'"):
        prepared(model=model, layer="filter", channel=1, parameterisation="log_mel")
