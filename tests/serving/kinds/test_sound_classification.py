"""Recognisers of sounds as endpoints: what a card must say, samples and uploads, good and bad."""

import io
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import nn

from jobs.common.audio.levels import at_loudness
from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec
from service.store import open_store
from serving.http.messages import Form
from serving.http.settings import Batching, Http, Limits, ServeSettings
from serving.kinds.sound_classification import SoundClassification
from tests.jobs.sonification.tones import CLASSES, RATE, network
from tests.ports import free_port
from tests.serving import in_process
from tests.serving.models import SAMPLES, put_recogniser, recogniser_draft, recogniser_settings

NETWORK = network()


def endpoint(net: nn.Module = NETWORK, limits: Limits | None = None, **changes: Any) -> SoundClassification:
    card = ModelCard(
        **recogniser_draft(**changes).model_dump(),
        name="m",
        version=1,
        created="",
        parameters=1,
        bytes=1,
        sha256="",
        run=None,
    )
    settings = ServeSettings(limits=limits or Limits(), batching=Batching(max_rows=4))
    return SoundClassification(card, net, settings, torch.device("cpu"))


def settings_with(**changes: Any) -> dict[str, Any]:
    return {"settings": {**recogniser_settings(), **changes}}


MODEL = endpoint()


def tone(samples: int = SAMPLES, rate: int = RATE, hertz: float = 1000.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(samples) / rate).astype(np.float32) / 2


def encoded(samples: np.ndarray, rate: int = RATE, **form: Any) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **form})
    return data.getvalue()


def ask(sounds: np.ndarray, **parameters: Any) -> dict[str, np.ndarray]:
    (answer,) = MODEL.compute([MODEL.prepare({"sounds": sounds}, parameters)], lambda: False)
    return dict(answer)


def test_the_answer_is_that_of_the_network() -> None:
    sounds = np.stack([tone(), tone(hertz=400)])
    answer = ask(sounds)
    with torch.no_grad():
        logits = NETWORK(torch.from_numpy(sounds))
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"].sum(1), 1, atol=1e-6)
    assert answer["prediction"].tolist() == logits.argmax(1).tolist()


@pytest.mark.parametrize(
    ("sounds", "sentence"),
    [
        (tone()[None] * 3, r"samples must be in \[-1, 1\]; the largest magnitude is 1.5 \(divide by 32768\)"),
        (tone(100)[None], "must have 257 to 480,000 samples; it has 100"),
        (np.zeros((5, SAMPLES), np.float32), "must have at most 4 rows"),
    ],
)
def test_tensors_that_are_no_sounds(sounds: np.ndarray, sentence: str) -> None:
    if "257" in sentence:
        sentence = sentence.replace("257", f"{NETWORK.shortest:,}")
    with pytest.raises(InputError, match=sentence):
        ask(sounds)
    with pytest.raises(InputError, match="loud"):
        ask(tone()[None], loud=True)


def test_long_answers_are_known_to_be_long() -> None:
    assert MODEL.prepare({"sounds": np.stack([tone()] * 4)}, {}).values == 4 * (3 + 3 + 1)


def test_uploads_become_clips_as_those_of_the_evaluation() -> None:
    """Another rate, several channels, another length: the middle, at the loudness of all clips."""
    assert MODEL.upload is not None
    plain = MODEL.upload.read(encoded(tone()))
    np.testing.assert_allclose(plain[0], at_loudness(torch.from_numpy(tone())), atol=1e-3)
    stereo = MODEL.upload.read(encoded(np.stack([tone(), np.zeros_like(tone())], 1)))
    np.testing.assert_allclose(stereo, plain, atol=1e-3)
    twice = MODEL.upload.read(encoded(tone(2 * SAMPLES, 2 * RATE), 2 * RATE, format="FLAC"))
    np.testing.assert_allclose(twice[0, 100:-100], plain[0, 100:-100], atol=0.01)
    long = MODEL.upload.read(encoded(np.concatenate([np.zeros(SAMPLES), tone(), np.zeros(SAMPLES)])))
    np.testing.assert_allclose(long, plain, atol=1e-3)
    short = MODEL.upload.read(encoded(tone(500)))
    assert short.shape == (1, SAMPLES) and not short[0, :700].any() and not short[0, -700:].any() and short.any()


def test_a_rate_that_has_little_in_common_with_the_models_is_refused() -> None:
    assert MODEL.upload is not None
    body = encoded(tone(5000, 4001), 4001)
    with pytest.raises(InputError, match="4,001 samples a second cannot be brought to 8,000: .* too little in common"):
        MODEL.upload.read(body)
    for rate in (4000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000):
        assert MODEL.upload.read(encoded(tone(rate // 10, rate), rate)).shape == (1, SAMPLES)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "it is empty"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "the uploaded sound cannot be read"),
        (b"\x89PNG\r\n", "it is none of WAV"),
        (encoded(tone(8000, 400), 400, subtype="PCM_16"), "its rate must be"),
        (encoded(np.full(SAMPLES, np.nan), subtype="FLOAT"), "its samples must be finite numbers"),
        (encoded(np.zeros(SAMPLES)), "it is silent"),
        (encoded(np.zeros(70 * RATE)), "it must last at most 60 seconds; it lasts 70.0"),
    ],
)
def test_files_that_are_no_sounds(body: bytes, sentence: str) -> None:
    assert MODEL.upload is not None
    assert MODEL.upload.memory(body) >= len(body)
    with pytest.raises(InputError, match=sentence):
        MODEL.upload.read(body)


def test_memory_of_an_upload_is_known_before_it_is_read() -> None:
    assert MODEL.upload is not None
    body = encoded(tone(10 * RATE))
    assert len(body) + 4 * 4 * 10 * RATE <= MODEL.upload.memory(body) <= len(body) + 64 * 10 * RATE


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": {"classes": list(CLASSES), "rate": RATE}}, "settings.samples: Field required"),
        ({"settings": {"classes": list(CLASSES), "rate": 9000, "samples": SAMPLES}}, "the network expects 8000"),
        ({"settings": {"classes": ["a", "b"], "rate": RATE, "samples": SAMPLES}}, "its card names 2 classes"),
        ({"settings": {"classes": list(CLASSES), "rate": RATE, "samples": 50}}, "does not run on sounds of 50 samples"),
        ({"inputs": (TensorSpec(name="x", datatype="FP32", shape=(-1, -1)),)}, "has one input 'sounds'"),
        (settings_with(layers={"mel": {"mean": [0], "spread": [1]}}), "settings.layers must be {'mel': 16"),
        (settings_with(layers={"mel": {"mean": [0], "spread": [0]}}), "settings.layers.mel.spread"),
        (settings_with(layers={"mel": {"mean": [0], "spread": [1], "dead": [1]}}), "of the channels that mean has"),
        (settings_with(mean_mel=[0.0]), "settings.mean_mel must have 16 numbers; it has 1"),
    ],
)
def test_cards_that_do_not_fit(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        endpoint(**changes)


def test_a_clipped_sound_is_answered_with_a_warning() -> None:
    flat = np.clip(2 * tone(), -0.5, 0.5)[None]
    assert MODEL.prepare({"sounds": flat}, {}).parameters == {
        "warning": "input 'sounds' is clipped: its peaks are cut off flat"
    }
    assert not MODEL.prepare({"sounds": tone()[None]}, {}).parameters
    with pytest.raises(InputError, match="the answer for one sound, not for 2"):
        MODEL.prepare({"sounds": np.stack([tone(), tone()])}, {}, Form(wav=True))


def test_over_http(tmp_path: Any) -> None:
    store = str(tmp_path / "store")
    put_recogniser(open_store(store), "words")
    with in_process.listening(ServeSettings(http=Http(port=free_port())), store) as url:
        path = f"{url}/v2/models/words/infer"
        body = encoded(tone())
        answer = httpx.post(f"{path}?outputs=prediction", content=body, headers={"Content-Type": "audio/wav"}).json()
        assert MODEL.upload is not None
        assert answer["outputs"][0]["data"] == ask(MODEL.upload.read(body))["prediction"].tolist()
        bad = httpx.post(path, content=b"noise", headers={"Content-Type": "audio/wav"})
        assert bad.status_code == 400 and "the uploaded sound cannot be read" in bad.json()["error"]
        wav = httpx.post(path, content=body, headers={"Content-Type": "audio/wav", "Accept": "audio/wav"})
        samples, rate = soundfile.read(io.BytesIO(wav.content), dtype="float32")
        assert wav.headers["content-type"] == "audio/wav" and rate == RATE
        np.testing.assert_allclose(samples, MODEL.upload.read(body)[0], atol=1e-4)
        png = httpx.post(path, content=body, headers={"Content-Type": "audio/wav", "Accept": "image/png"})
        assert Image.open(io.BytesIO(png.content)).format == png.headers["content-type"].partition("/")[2].upper()
        image = httpx.post(path, content=b"noise", headers={"Content-Type": "image/png"})
        assert image.status_code == 400 and "a file of type audio/" in image.json()["error"]
