"""What a server takes: sizes, time and memory; and clients that leave, or mean it no good."""

import asyncio
import concurrent.futures
import contextlib
import gzip
import http.client
import io
import json
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image
from ray.exceptions import TaskCancelledError
from starlette.requests import Request
from starlette.types import Message

from service.store import open_store
from serving.deployments import server
from serving.deployments.attack_server import Reply
from serving.http.exchange import LEFT
from serving.http.keys import new_key
from serving.http.settings import Attacks, Models, Queue, ServeSettings
from serving.http.uploads import ImageUpload
from tests.processes import wait_for
from tests.serving import in_process
from tests.serving.conftest import SETTINGS, Served
from tests.serving.messages import message, outputs, refused, stats, tensor
from tests.serving.models import bits, network, put, put_classifier
from tests.serving.unanswered import answered, asked


def test_a_body_of_100_mb_is_refused_and_the_server_lives(served: Served) -> None:
    with refused(413, "the body must have at most 4,194,304 bytes"):
        served.client().infer("sums", tensor(np.zeros((1, 1, 25_000_000), np.float32)))
    client = served.client()
    assert client.is_server_live()
    client.infer("sums", tensor(bits(1, 8).numpy()))


def test_a_body_in_chunks_without_an_end_is_cut_off(served: Served) -> None:
    """The server answers as soon as the limit is passed, though the client never finishes."""
    connection = http.client.HTTPConnection(served.address, timeout=30)
    connection.putrequest("POST", "/v2/models/sums/infer")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"%x\r\n%s\r\n" % (1 << 16, b"x" * (1 << 16))
    for _ in range(65):
        connection.send(chunk)
    answer = connection.getresponse()
    assert answer.status == 413 and "4,194,304" in json.loads(answer.read())["error"]
    connection.close()


def test_a_zip_bomb_is_refused(served: Served) -> None:
    inputs = tensor(np.zeros((1, 1, 25_000_000), np.float32))
    with refused(413, "unpacks to more than 4,194,304 bytes"):
        served.client().infer("sums", inputs, request_compression_algorithm="gzip")


def test_models_leave_memory_and_come_back(served: Served) -> None:
    client, array = served.client(), bits(1, 8).numpy()
    for name in ("left", "right", "centre", "back"):
        put(served.store, name)
        client.infer(name, tensor(array))
    loaded = [each["name"] for each in client.get_model_repository_index() if each["loaded"]]
    assert set(loaded) == {"right", "centre", "back"} and len(loaded) == SETTINGS.models.loaded
    client.infer("left", tensor(array))


def test_a_damaged_model_answers_500_with_a_sentence(served: Served) -> None:
    put(served.store, "damaged")
    served.store.write("models/damaged/1/model.safetensors", b"<html>not found</html>")
    with refused(500, "model 'damaged' version 1"):
        served.client().infer("damaged", tensor(bits(1, 8).numpy()))


def test_a_client_that_leaves_takes_its_work_along(served: Served) -> None:
    """A request of the same kind would wait for the first to end, which takes minutes, were it not abandoned."""
    body = message(bits(4, 4000).numpy(), iterations=9_000)
    for _ in range(2):
        with asked(served.address, "sums/infer", body) as (client,):
            wait_for(lambda: stats(served)["running"]["batches"])
            served.client().infer("sums", tensor(bits(1, 8).numpy()))  # another kind is answered meanwhile
            assert not answered([client])
    wait_for(lambda: not stats(served)["running"]["batches"])


@pytest.mark.parametrize("error", [None, TaskCancelledError()], ids=["it says so", "Serve has given it up"])
def test_a_client_that_leaves_before_its_body_is_read_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    store = open_store(str(tmp_path))
    put(store, "sums")
    replica = in_process.server(ServeSettings(attacks=Attacks(enabled=False)), store.uri)
    monkeypatch.setattr(server.logger, "exception", lambda *what: pytest.fail(str(what)))

    async def receive() -> Message:
        if error:
            raise error
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/v2/models/sums/infer", "headers": [], "query_string": b""}
    assert asyncio.run(replica(Request(scope, receive))).status_code == LEFT


def test_what_a_body_unpacks_to_counts_as_held(tmp_path: Path) -> None:
    """Also where it is only passed on, as to an attack."""
    store = open_store(str(tmp_path))
    put_classifier(store, "digits")
    replica = in_process.server(ServeSettings(queue=Queue(memory_mb=16)), store.uri)
    body = gzip.compress(b" " * (10 << 20))

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-encoding", b"gzip")]
    scope = {"type": "http", "method": "POST", "path": "/v2/models/digits/attack", "headers": headers}
    answer = asyncio.run(replica(Request({**scope, "query_string": b""}, receive)))
    assert answer.status_code == 413 and b"at most 8 MiB of memory" in answer.body


def test_of_the_places_for_attacks_a_key_has_half(tmp_path: Path) -> None:
    """All others would be told to come back for as long as its attacks take."""
    store, made = open_store(str(tmp_path)), {name: new_key(name) for name in ("alice", "bob")}
    put_classifier(store, "digits")
    keys = tuple(key for _, key in made.values())
    attacks = Attacks(queue=Queue(ongoing=2, waiting=1))
    replica = in_process.server(ServeSettings(keys=keys, attacks=attacks), store.uri)

    async def run() -> None:
        go_on = asyncio.Event()

        async def remote(*arguments: object) -> Reply:
            await go_on.wait()
            return Reply(200, b"{}")

        replica._attacks = SimpleNamespace(optimise=SimpleNamespace(remote=remote))  # type: ignore[assignment]

        async def ask(name: str) -> int:
            async def receive() -> Message:
                return {"type": "http.request", "body": b"{}", "more_body": False}

            headers = [(b"authorization", f"Bearer {made[name][0]}".encode())]
            scope = {"type": "http", "method": "POST", "path": "/v2/models/digits/attack", "headers": headers}
            return (await replica(Request({**scope, "query_string": b""}, receive))).status_code

        first = asyncio.create_task(ask("alice"))
        while not replica._optimising["alice"]:
            await asyncio.sleep(0.001)
        assert await ask("alice") == 503
        bob = asyncio.create_task(ask("bob"))
        go_on.set()
        assert [await first, await bob, await ask("alice")] == [200, 200, 200]

    asyncio.run(run())


def test_models_in_memory_are_of_the_key_that_asks(tmp_path: Path) -> None:
    """With inference, and with the question whether one is ready."""
    store, made = open_store(str(tmp_path)), {name: new_key(name) for name in ("alice", "mallory")}
    for name in "abcde":
        put(store, name)
    keys = tuple(key for _, key in made.values())
    replica = in_process.server(ServeSettings(keys=keys, models=Models(loaded=2)), store.uri)

    async def ask(name: str, method: str, path: str) -> int:
        async def receive() -> Message:
            return {"type": "http.request", "body": json.dumps(message(bits(1, 8).numpy())).encode()}

        headers = [(b"authorization", f"Bearer {made[name][0]}".encode())]
        scope = {"type": "http", "method": method, "path": f"/v2/models/{path}", "headers": headers}
        return (await replica(Request({**scope, "query_string": b""}, receive))).status_code

    async def run() -> None:
        assert await ask("alice", "POST", "a/infer") == 200
        for path in ("b", "c"):
            assert await ask("mallory", "POST", f"{path}/infer") == 200
        assert [card.name for card in replica._models.loaded] == ["a", "c"]
        for path in ("d", "e"):
            assert await ask("mallory", "GET", f"{path}/ready") == 200
        assert [card.name for card in replica._models.loaded] == ["a", "e"]

    asyncio.run(run())


def test_a_small_file_of_many_pixels_is_read_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bomb in few bytes: on the event loop all others would wait for it."""
    store, threads = open_store(str(tmp_path)), list[threading.Thread]()
    put_classifier(store, "digits")
    replica = in_process.server(ServeSettings(attacks=Attacks(enabled=False)), store.uri)
    read = ImageUpload.read

    def watched(upload: ImageUpload, body: bytes) -> np.ndarray:
        threads.append(threading.current_thread())
        return read(upload, body)

    monkeypatch.setattr(ImageUpload, "read", watched)
    for side, here in ((8, True), (2000, False)):
        file = io.BytesIO()
        Image.new("1", (side, side)).save(file, "PNG")
        body = file.getvalue()
        assert len(body) < 4096

        async def receive(body: bytes = body) -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(b"content-type", b"image/png")]
        scope = {"type": "http", "method": "POST", "path": "/v2/models/digits/infer", "headers": headers}
        assert asyncio.run(replica(Request({**scope, "query_string": b""}, receive))).status_code == 200
        assert (threads.pop() is threading.current_thread()) == here


def test_garbage_on_the_wire_does_not_hurt(served: Served) -> None:
    host, port = served.address.split(":")
    for garbage in (b"\0" * 1000, b"POST /v2/models/sums/infer HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"GET"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(garbage)
    assert served.client().is_server_live()


def test_many_clients_of_every_sort(served: Served) -> None:
    """Good requests are all answered right in the middle of bad ones and of clients that leave."""
    url = f"{served.url}/v2/models/sums/infer"
    twin = network(width=16, seed=1)

    def good(seed: int) -> None:
        inputs = bits(1, 8 + seed % 3, seed)
        answer = httpx.post(url, json=message(inputs.numpy(), iterations=5 + seed % 2), timeout=60)
        expected = twin(inputs, 5 + seed % 2)[0].argmax(1).ravel().tolist()
        assert answer.status_code == 200, answer.text
        assert outputs(answer.json())["prediction"] == expected

    def bad(seed: int) -> None:
        assert httpx.post(url, content=b"{}" * seed, timeout=60).status_code == 400

    def gone(seed: int) -> None:
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(url, json=message(bits(2, 500, seed).numpy(), iterations=900), timeout=0.05)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        tasks = [pool.submit((good, bad, gone, good)[seed % 4], seed) for seed in range(60)]
        for task in tasks:
            task.result()
