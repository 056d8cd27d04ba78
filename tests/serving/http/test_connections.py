"""Connections that send too much, too slowly or nothing, at a real uvicorn server over real sockets."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.http.connections import bounded
from serving.http.settings import Connections
from tests.ports import free_port
from tests.processes import wait_for

LIMITS = Connections(open=8, header_kb=4, header_fields=10, header_seconds=0.3, unread_seconds=0.3)
ANSWER = b'{"bytes": %d}'


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body, or with as many megabytes as the path asks for."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    path = scope["path"].strip("/")
    body = bytes(int(path) << 20) if path.isdigit() else ANSWER % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def listening(pooled: bool = False, limits: Connections = LIMITS, **options: Any) -> Iterator[int]:
    """The port of a server. pooled: as `bounded`. options: of uvicorn."""
    port, protocol = free_port(), bounded(limits, pooled)
    config = uvicorn.Config(app, port=port, http=protocol, lifespan="off", log_level="critical", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening() as port:
        yield port


@contextlib.contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    """Everything that still comes. A connection that the server reset has ended as well."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            received += part
    return received


def answer_of(connection: socket.socket, count: int = 1) -> bytes:
    """What comes until so many bodies of `ANSWER` have ended."""
    received = b""
    while received.count(b"}") < count:
        received += connection.recv(1 << 16)
    return received


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def sentence(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"])


REQUEST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def test_requests_pass_one_after_another_and_pipelined(port: int) -> None:
    with connection(port) as client:
        client.sendall(REQUEST)
        assert status(answer_of(client)) == 200
        client.sendall(REQUEST * 3)
        assert answer_of(client, 3).count(ANSWER % 5) == 3


def test_an_idle_connection_is_closed_unless_its_client_closes_it_itself() -> None:
    """HAProxy does: a replica that was first might close while a request is on its way."""
    with listening(timeout_keep_alive=0) as port, connection(port) as client:
        client.sendall(REQUEST)
        answer_of(client)
        assert client.recv(1) == b""
    with listening(pooled=True, timeout_keep_alive=0) as port, connection(port) as client:
        for _ in range(2):
            client.sendall(REQUEST)
            answer_of(client)
            time.sleep(0.2)


def test_an_answer_comes_in_one_piece(port: int) -> None:
    with connection(port) as client:
        for _ in range(20):
            client.sendall(REQUEST)
            assert client.recv(1 << 16).endswith(ANSWER % 5), "its head came alone"


def test_a_body_far_larger_than_headers_may_be_passes(port: int) -> None:
    with connection(port) as client:
        client.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        assert answer_of(client).endswith(ANSWER % 3_000_000)


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: ", b"x"),
        (b"GET /", b"x"),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n", b"X: x\r\n"),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x"),
    ],
    ids=["header", "address", "headers", "chunk extension", "trailer"],
)
def test_what_never_ends_is_cut_off_early(port: int, beginning: bytes, endless: bytes) -> None:
    sent, piece = 0, endless * 10_000
    with connection(port) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(beginning)
            while sent < 100_000_000:
                client.sendall(piece)
                sent += len(piece)
        until_closed(client)
    assert sent < 20_000_000  # the rest of it lies in the buffers of the kernel at most


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (b"X: " + b"x" * 4096 + b"\r\n", "the headers have more than 4,096 bytes"),
        (b"X: x\r\n" * 10, "the request has more than 10 headers"),
    ],
)
def test_a_head_over_the_limit_is_431(port: int, headers: bytes, message: str) -> None:
    with connection(port) as client:
        client.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
        answer = until_closed(client)
    assert (status(answer), sentence(answer)) == (431, message)


def test_what_is_not_http_is_one_sentence(port: int) -> None:
    with connection(port) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = until_closed(client)
    assert (status(answer), sentence(answer)) == (400, "this is not a request in HTTP/1.1")


@pytest.mark.parametrize("part", [b"", b"\r\n", b"GET /x HT", b"GET /x HTTP/1.1\r\nHost: a\r\n"])
def test_half_a_head_or_nothing_ends_in_time(port: int, part: bytes) -> None:
    began = time.monotonic()
    with connection(port) as client:
        client.sendall(part)
        assert until_closed(client) == b""
    assert time.monotonic() - began > 0.2


def test_a_head_a_byte_at_a_time_ends_in_time(port: int) -> None:
    with connection(port) as client, pytest.raises(ConnectionError):
        for byte in b"GET / HTTP/1.1\r\nX: " + b"x" * 1000:  # it would last 20 s
            client.sendall(bytes([byte]))
            time.sleep(0.02)


def test_a_slow_body_is_not_for_the_connection_to_judge(port: int) -> None:
    with connection(port) as client:
        client.sendall(REQUEST[:-5])
        time.sleep(0.5)
        client.sendall(b"hello")
        assert answer_of(client).endswith(ANSWER % 5)


def test_one_connection_too_many_is_closed_and_there_is_room_again(port: int) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connection(port)) for _ in range(9)]
        assert until_closed(clients[-1]) == b""

    def room() -> bool:
        with connection(port) as client, contextlib.suppress(ConnectionError):
            client.sendall(REQUEST)
            return bool(client.recv(1))
        return False

    wait_for(room)


def test_an_answer_that_nobody_reads_is_dropped(port: int) -> None:
    with connection(port) as client:
        client.sendall(b"GET /60 HTTP/1.1\r\nHost: a\r\n\r\n")
        ours = client.getsockname()

        def is_accepted() -> bool:
            return ours in [each.raddr for each in psutil.Process().net_connections("tcp")]

        wait_for(is_accepted)
        wait_for(lambda: not is_accepted())
        assert len(until_closed(client)) < 60 << 20


def test_an_answer_that_is_read_slowly_comes_whole(port: int) -> None:
    received = 0
    with connection(port) as client:
        client.sendall(b"GET /20 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in range(15):
            time.sleep(0.1)
            received += len(client.recv(1 << 20))
        received += len(until_closed(client))
    assert received > 20 << 20


@contextlib.contextmanager
def unread_answer(port: int, megabytes: int, address: str) -> Iterator[socket.socket]:
    """A connection on which an answer waits. address: of the client, as a proxy says."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %s\r\n\r\n" % (megabytes, address.encode()))
        client.recv(1)
        yield client


def rest_of(client: socket.socket, megabytes: int) -> int:
    """How many bytes come until an answer of so many has ended, or its connection."""
    received = 0
    with contextlib.suppress(ConnectionError):
        while received < megabytes << 20 and (part := client.recv(1 << 20)):
            received += len(part)
    return received


def test_answers_that_nobody_reads_take_only_so_much_memory() -> None:
    limits = LIMITS.model_copy(update={"unread_mb": 130, "unread_seconds": 60})  # of three answers, all but for some
    with listening(limits=limits) as port, contextlib.ExitStack() as stack:
        addresses = ["10.0.0.1", *["10.0.0.2"] * 5, "10.0.0.3"]
        clients = [stack.enter_context(unread_answer(port, 40, address)) for address in addresses]
        whole = [rest_of(client, 40) >= 40 << 20 for client in clients]
        assert whole == [True, *[False] * 4, True, True], "whoever has the most loses the longest waiting"


def test_a_change_of_protocol_is_answered_as_any_request(port: int) -> None:
    with connection(port) as client:
        client.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert answer_of(client).endswith(ANSWER % 0)
