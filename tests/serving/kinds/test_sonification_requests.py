"""Requests to sonify, as HTTP brings them: parameters alone, uploads, bad ones; and a client that leaves."""

import asyncio
import io
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from starlette.testclient import TestClient

from service.store import open_store
from serving.deployments.attack_server import AttackServer
from serving.http import quotas
from serving.http.keys import new_key
from serving.http.messages import Message
from serving.http.settings import Attacks, ServeSettings, Sonification
from serving.kinds.sonification.work import SonificationWork
from serving.kinds.work import Stopped
from tests.jobs.sonification.tones import RATE
from tests.serving import in_process
from tests.serving.kinds.test_sonification import CHANNELS, FEW, LIMITS
from tests.serving.kinds.test_sound_classification import encoded, tone
from tests.serving.models import SAMPLES, put_recogniser, recogniser_settings

NO_ATTACKS = Attacks(enabled=False)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    store = open_store(str(tmp_path_factory.mktemp("sonification") / "store"))
    put_recogniser(store, "words")
    put_recogniser(store, "silent", settings={**recogniser_settings(), "layers": {}})
    app = in_process.application(ServeSettings(sonification=LIMITS), store.uri)
    yield TestClient(app, base_url="http://localhost/v2/models/")


ADDRESS = "words/sonify?layer=conv2&channel=5&steps=3&seconds=0.25"


def test_parameters_alone_are_enough(client: TestClient) -> None:
    """In the address, in the body; a WAV and a picture come with what is said of them in headers."""
    answer = client.post(f"{ADDRESS}&outputs=final,rank").json()
    message = {
        "parameters": {**FEW, "steps": 3},
        "outputs": [{"name": "final"}, {"name": "rank"}],
        "id": "a",
    }
    same = client.post("words/sonify", json=message).json()
    assert answer["outputs"] == same["outputs"] and same["id"] == "a"
    assert [each["name"] for each in answer["outputs"]] == ["final", "rank"]
    assert answer["parameters"]["objective"] == "channel" and answer["parameters"]["steps"] == 3
    sound = client.post(ADDRESS, headers={"Accept": "audio/wav"})
    assert sound.headers["content-type"] == "audio/wav"
    assert float(sound.headers["assay-final"]) == pytest.approx(answer["outputs"][0]["data"][0], rel=1e-5)
    samples, rate = soundfile.read(io.BytesIO(sound.content))
    assert (rate, len(samples)) == (RATE, RATE // 4)
    picture = client.post(ADDRESS, headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(picture.content)).format == "PNG"
    statistics = client.get("words/stats").json()["model_stats"][0]["attack_stats"]
    assert statistics["success"]["count"] == 4 and statistics["queries"] == 4 * 8


def test_a_sound_is_uploaded_and_sonified(client: TestClient) -> None:
    address = "words/sonify?layer=conv2&channel=5&steps=3"
    body = encoded(np.stack([tone(3 * SAMPLES, 2 * RATE)] * 2, 1), 2 * RATE, format="FLAC")
    answer = client.post(address, content=body, headers={"Content-Type": "audio/flac"}).json()
    assert answer["outputs"][0]["shape"] == [1, SAMPLES] and "seconds" not in answer["parameters"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "it is empty"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "cannot be read"),
        (encoded(tone())[:20] + b"\xff" * 24 + encoded(tone())[44:], "cannot be read"),
        (b"\x89PNG\r\n", "none of WAV"),
        (encoded(tone(8000, 400), 400), "its rate must be"),
        (encoded(np.full(SAMPLES, np.nan), subtype="FLOAT"), "finite numbers"),
        (encoded(np.full(SAMPLES, 9.0), subtype="FLOAT"), r"within [-1, 1]"),
        (encoded(np.zeros(SAMPLES)), "it is silent"),
        (encoded(np.zeros(70 * RATE)), "at most 60 seconds"),
        (encoded(np.zeros((SAMPLES, 9))), "from 1 to 8 channels"),
    ],
)
def test_files_that_are_no_sounds(client: TestClient, body: bytes, sentence: str) -> None:
    answer = client.post("words/sonify?layer=conv2&channel=5", content=body, headers={"Content-Type": "audio/wav"})
    assert answer.status_code == 400 and sentence in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("words/sonify?layer=conv9&channel=5", 400, "did you mean"),
        ("words/sonify?layer=conv2&channel=99", 400, "the nearest is 7"),
        ("words/sonify?layer=conv2&channel=5&steps=1e9", 400, "steps"),
        ("words/sonify", 400, "'layer' is missing"),
        ("words/sonify?layer", 400, "name=value"),
        (f"{ADDRESS}&outputs=sound", 400, "did you mean 'sounds'"),
        ("words/sonfy", 404, "did you mean 'sonify'"),
        ("silent/sonify?layer=conv2&channel=5", 404, "has no 'sonify'"),
        ("words/attack", 404, "has no 'attack'"),
    ],
)
def test_requests_that_make_no_sense(client: TestClient, path: str, status: int, sentence: str) -> None:
    answer = client.post(path)
    assert answer.status_code == status and sentence in answer.json()["error"]


def test_tensors_that_no_number_has(client: TestClient) -> None:
    tensor = {"name": "sounds", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 1e39, 0]}
    body = {"inputs": [tensor], "parameters": {"layer": "conv2", "channel": 5}}
    answer = client.post("words/sonify", json=body)
    assert answer.status_code == 400 and "NaN or an infinite number" in answer.json()["error"]


def test_the_models_say_who_can_be_sonified(client: TestClient) -> None:
    listed = {each["name"]: each["actions"] for each in client.get("http://localhost/v2/models").json()["models"]}
    assert listed == {"words": ["infer", "sonify"], "silent": ["infer"]}
    assert client.get("words").json()["parameters"]["sonification"]["layers"] == CHANNELS
    assert client.get("silent").json()["parameters"]["sonification"] == {}


def test_it_can_be_switched_off(tmp_path: Any) -> None:
    store = open_store(str(tmp_path))
    put_recogniser(store, "words")
    for settings in (ServeSettings(sonification=Sonification(enabled=False)), ServeSettings(attacks=NO_ATTACKS)):
        app = TestClient(in_process.application(settings, store.uri), base_url="http://localhost/v2/models/")
        answer = app.post(ADDRESS)
        assert answer.status_code == 404 and "switched off" in answer.json()["error"]
        assert app.get("words").json()["parameters"]["actions"] == ["infer"]


def test_a_client_that_leaves_takes_its_work_along(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve then cancels the call: it stops before the next of what would be many passes, and others come between."""
    store = open_store(str(tmp_path))
    card = put_recogniser(store, "words")
    keys = tuple(new_key(name)[1] for name in ("alice", "bob"))
    settings = ServeSettings(sonification=Sonification(steps=100_000, gmacs=1e9), keys=keys)
    monkeypatch.setattr(os, "nice", lambda by: 0)
    monkeypatch.setattr(quotas, "Quotas", in_process.QuotasHere)
    server = AttackServer(settings.for_attacks(), store.uri)
    began, ended = threading.Event(), threading.Event()
    compute = SonificationWork.compute

    def watched(work: SonificationWork, stopped: Stopped) -> Any:
        began.set()
        try:
            return compute(work, stopped)
        finally:
            if work.options.ascent.steps > 1000:
                ended.set()

    monkeypatch.setattr(SonificationWork, "compute", watched)

    def message(steps: int) -> Message:
        return Message(b"", "", None, f"layer=conv2&channel=5&seconds=0.25&steps={steps}&outputs=final", "")

    async def main() -> None:
        leaving = asyncio.ensure_future(server.optimise("sonify", card, message(90_000), "alice"))
        await asyncio.to_thread(began.wait)
        other = await server.optimise("sonify", card, message(2), "bob")
        assert other.status == 200 and not leaving.done() and not ended.is_set()
        leaving.cancel()
        await asyncio.wait([leaving])
        assert await asyncio.to_thread(ended.wait, 20)

    asyncio.run(main())
