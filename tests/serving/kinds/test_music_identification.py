"""Databases of songs as endpoints: what a card must say, samples and uploads, known and unknown songs."""

import io
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from jobs.common.audio.fingerprints.database import Database
from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec
from service.store import open_store
from serving.http.messages import Form
from serving.http.settings import Batching, Http, Limits, ServeSettings
from serving.kinds.music_identification import OF_SOUND, MusicIdentification
from tests.ports import free_port
from tests.serving import in_process
from tests.serving.songs import RATE, SAMPLES, database, draft, excerpt, put_songs, songs, stacked

NAMES = list(songs()[0].names)


def endpoint(network: nn.Module | None = None, limits: Limits | None = None, **changes: Any) -> MusicIdentification:
    card = ModelCard(
        **draft(**changes).model_dump(),
        name="songs",
        version=1,
        created="",
        parameters=1,
        bytes=1,
        sha256="",
        run=None,
    )
    settings = ServeSettings(limits=limits or Limits(), batching=Batching(max_rows=4))
    return MusicIdentification(card, network or database(), settings, torch.device("cpu"))


MODEL = endpoint()


def ask(sounds: np.ndarray, model: MusicIdentification = MODEL, *maps: str, **parameters: Any) -> dict[str, np.ndarray]:
    form = Form(tuple(maps) or None)
    (answer,) = model.compute([model.prepare({"sounds": sounds}, parameters, form)], lambda: False)
    return dict(answer)


def encoded(samples: torch.Tensor, rate: int = RATE, **form: Any) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, samples.numpy(), rate, **{"format": "WAV", "subtype": "PCM_16", **form})
    return data.getvalue()


def test_the_answer_is_that_of_the_database() -> None:
    sounds = stacked(excerpt(3, 9_000), excerpt(1, 20_000), songs()[1].sounds[0][:SAMPLES])
    answer = ask(sounds)
    assert list(answer) and {name for name, _ in OF_SOUND} == set(answer)
    for row, sound in enumerate(torch.from_numpy(sounds)):
        match = database().identify(sound)
        assert answer["song"][row] == (-1 if match.song is None else match.song)
        assert (answer["aligned"][row], answer["hashes"][row]) == (match.aligned, match.hashes)
        assert (answer["best"][row], answer["runner_up"][row]) == (match.best, match.runner_up)
        np.testing.assert_allclose(answer["seconds"][row], match.seconds, rtol=1e-6)
    assert answer["song"].tolist() == [3, 1, -1], "a song that is not in it is an answer, not an error"
    assert answer["confidence"][0] > 0.9 > answer["confidence"][2]
    np.testing.assert_allclose(answer["seconds"][:2], [9_000 / RATE, 20_000 / RATE], atol=0.05)


def test_what_is_long_is_compared_by_its_middle_and_placed_by_its_beginning() -> None:
    work = MODEL.prepare({"sounds": stacked(excerpt(2, 4_000, 40_000))}, {})
    assert work.warning == "the middle 2 of 5 seconds are compared, for which the database is calibrated"
    (answer,) = MODEL.compute([work], lambda: False)
    assert answer["song"].tolist() == [2] and answer["seconds"][0] == pytest.approx(0.5, abs=0.05)
    assert not MODEL.prepare({"sounds": stacked(excerpt(2, 0))}, {}).warning


def test_works_of_one_length_are_computed_together() -> None:
    works = [MODEL.prepare({"sounds": stacked(excerpt(song, 500))}, {}) for song in (4, 0)]
    assert works[0].key == works[1].key
    assert [answer["song"].tolist() for answer in MODEL.compute(works, lambda: False)] == [[4], [0]]


def test_the_spectrogram_and_its_peaks_are_those_of_the_fingerprint() -> None:
    sound = excerpt(0, 1_000)
    answer = ask(stacked(sound, sound / 2), MODEL, "song", "spectrogram", "peaks")
    fingerprint = database().fingerprint
    np.testing.assert_array_equal(answer["peaks"][0], fingerprint.peaks(sound[None])[0][0])
    magnitudes = fingerprint.magnitudes(sound[None])[0][0]
    decibels = 20 * torch.log10(magnitudes / magnitudes.max())
    expected = (255 * (1 + decibels / 80)).clamp(min=0)
    assert answer["spectrogram"].dtype == np.uint8 and answer["spectrogram"].max() == 255
    np.testing.assert_allclose(answer["spectrogram"][0], expected, atol=0.51)
    np.testing.assert_allclose(answer["spectrogram"][1], answer["spectrogram"][0].astype(float), atol=1)
    with pytest.raises(InputError, match=r"peaks must have at most 1,000 numbers \(limits.map_values\)"):
        ask(stacked(sound), endpoint(limits=Limits(map_values=1000)), "peaks")


@pytest.mark.parametrize(
    ("sounds", "sentence"),
    [
        (
            3 * stacked(excerpt(0, 0)) / np.abs(stacked(excerpt(0, 0))).max(),
            r"the largest magnitude is 3 \(divide by 32768\)",
        ),
        (np.zeros((1, 100), np.float32), "must have 1,024 to 480,000 samples; it has 100"),
        (np.zeros((5, SAMPLES), np.float32), "must have at most 4 rows"),
    ],
)
def test_tensors_that_are_no_sounds(sounds: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ask(sounds)
    with pytest.raises(InputError, match="unknown parameter 'loud'"):
        ask(stacked(excerpt(0, 0)), loud=True)


def test_silence_is_in_no_song() -> None:
    answer = ask(np.zeros((1, SAMPLES), np.float32))
    assert (answer["song"][0], answer["best"][0], answer["hashes"][0], answer["confidence"][0]) == (-1, -1, 0, 0)


def test_uploads_are_taken_whole_and_as_loud_as_they_are() -> None:
    """Another rate, several channels, four formats: the same song at the same place."""
    assert MODEL.upload is not None
    part = excerpt(1, 12_000, 24_000) / 2
    plain = MODEL.upload.read(encoded(part))
    np.testing.assert_allclose(plain[0], part, atol=1e-4)
    twice = torch.nn.functional.interpolate(part[None, None], scale_factor=2, mode="linear")[0, 0]
    stereo = torch.stack([part, torch.zeros_like(part)], 1)
    forms = [
        encoded(part, format="FLAC"),
        encoded(part, format="OGG", subtype="VORBIS"),
        encoded(part, format="MP3", subtype="MPEG_LAYER_III"),
        encoded(twice, 2 * RATE),
        encoded(stereo),
    ]
    for body in forms:
        answer = ask(MODEL.upload.read(body))
        assert answer["song"].tolist() == [1] and answer["seconds"][0] == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "it is empty"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "the uploaded sound cannot be read"),
        (encoded(torch.zeros(SAMPLES)), "it is silent"),
        (encoded(torch.full((SAMPLES,), torch.nan), subtype="FLOAT"), "its samples must be finite numbers"),
        (encoded(torch.zeros(70 * RATE)), "it must last at most 60 seconds; it lasts 70.0"),
    ],
)
def test_files_that_are_no_sounds(body: bytes, sentence: str) -> None:
    assert MODEL.upload is not None and MODEL.upload.memory(body) >= len(body)
    with pytest.raises(InputError, match=sentence):
        MODEL.upload.read(body)


def damaged() -> Database:
    copy = Database(database().fingerprint, 2, 5)
    copy.lengths += 8_000
    copy.hashes = torch.tensor([2, 1])
    return copy


@pytest.mark.parametrize(
    ("network", "changes", "sentence"),
    [
        (None, {"settings": {"names": NAMES, "rate": RATE}}, "settings.samples: Field required"),
        (None, {"settings": {"names": NAMES, "rate": 9000, "samples": 9}}, "but the database expects 8000"),
        (None, {"settings": {"names": NAMES[:2], "rate": RATE, "samples": 9}}, "has 2 names for 5 songs"),
        (None, {"inputs": (TensorSpec(name="x", datatype="FP32", shape=(-1, -1)),)}, "has one input 'sounds'"),
        (nn.Linear(2, 2), {}, "must be a Database; it is Linear"),
        (damaged(), {}, "model 'songs': the hashes of a database must be sorted"),
    ],
)
def test_cards_and_databases_that_do_not_fit(network: nn.Module | None, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        endpoint(network, **changes)


def test_over_http(tmp_path: Any) -> None:
    """Inference, and an attack whose WAV is judged as its headers say: by the endpoint, and by the database itself."""
    store = str(tmp_path / "store")
    put_songs(open_store(store), "tunes")
    wav = {"Content-Type": "audio/wav"}
    with in_process.listening(ServeSettings(http=Http(port=free_port())), store) as url:
        path = f"{url}/v2/models/tunes"
        metadata = httpx.get(path).json()["parameters"]
        assert metadata["settings"]["names"] == NAMES and set(metadata["attacks"]) == {"ring", "overlap"}
        body = encoded(excerpt(3, 8_000))
        answer = httpx.post(f"{path}/infer?outputs=song,seconds", content=body, headers=wav).json()
        assert [each["data"] for each in answer["outputs"]] == [[3], [pytest.approx(1.0, abs=0.05)]]
        bad = httpx.post(f"{path}/infer", content=b"noise", headers=wav)
        assert bad.status_code == 400 and "the uploaded sound cannot be read" in bad.json()["error"]

        query = "epsilon=0.1&steps=60"
        answer = httpx.post(f"{path}/attack?{query}", content=body, headers={**wav, "Accept": "audio/wav"}, timeout=60)
        assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav", answer.text
        said = {name: answer.headers[f"assay-{name}"] for name in ("adversarial-song", "successful", "linf", "overlap")}
        assert said["successful"] == "true" and int(said["adversarial-song"]) != 3
        assert float(said["linf"]) <= 0.1 + 1e-6 and float(said["overlap"]) < 0.5
        samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
        assert rate == RATE
        largest = np.abs(samples - excerpt(3, 8_000).numpy()).max()
        assert largest == pytest.approx(float(said["linf"]), abs=4e-5), (
            "libsndfile reads parts of 32,768, not of 32,767"
        )
        again = httpx.post(f"{path}/infer?outputs=song", content=answer.content, headers=wav).json()
        assert again["outputs"][0]["data"] == [int(said["adversarial-song"])]
        assert database().identify(torch.from_numpy(samples)).song != 3
