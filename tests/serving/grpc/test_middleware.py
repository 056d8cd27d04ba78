"""What is in front of the replicas in a gRPC server, in one that Serve starts, with a stand-in for the replicas."""

import asyncio
import contextlib
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest
from ray.serve._private import default_impl
from ray.serve._private.constants import DEFAULT_GRPC_SERVER_OPTIONS
from ray.serve._private.grpc_util import set_grpc_code_and_details, start_grpc_server
from ray.serve._private.proxy_request_response import ResponseStatus, gRPCStreamingType
from ray.serve.config import gRPCOptions
from tritonclient.grpc import service_pb2

from service.errors import ClusterError
from serving.grpc import connections, errors
from serving.grpc import middleware as middleware_of_grpc
from serving.grpc.middleware import ADDRESS, IS_LIVE, METHODS, SERVICE, STREAM, add_to_server
from serving.http import auth
from serving.http.keys import new_key
from serving.http.middleware import SETTINGS
from serving.http.settings import Connections, Grpc, Http, Limits, Logging, ServeSettings
from serving.http.streams import AHEAD
from tests.ports import free_port
from tests.serving.http.test_auth import LocalQuotas
from tests.serving.http.test_quotas import Clock

TOKEN, ALICE = new_key("alice")
ALICE = ALICE.model_copy(update={"requests_per_second": 0.25, "burst": 3})
KEYED = (("authorization", f"Bearer {TOKEN}"),)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
CODE = grpc.StatusCode
QUICK = Connections(body_seconds=0.3, unread_seconds=0.3, header_seconds=1, open=8, bodies_mb=0.25)


class Replicas:
    """Stands in for Serve. passed: (method, message) of each call that came so far. answer: bytes, or a failure.

    parts: how many answers a message of a stream gets. computed: those so far. left: messages that nobody waits for.
    """

    def __init__(self) -> None:
        self.passed: list[tuple[str, bytes]] = []
        self.answer: bytes | ResponseStatus = b"answer"
        self.parts, self.computed, self.left = 3, 0, 0

    async def _streamed(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """As a replica answers: no more than a few answers are on their way."""
        self.passed.append((STREAM, await anext(messages)))
        on_the_way = 0
        try:
            for number in range(self.parts):
                if isinstance(self.answer, ResponseStatus):
                    set_grpc_code_and_details(context, self.answer)
                    return
                self.computed += 1
                yield b"%d " % number + self.answer
                on_the_way += 1
                while on_the_way >= AHEAD and number + 1 < self.parts:
                    assert await anext(messages) == b""
                    on_the_way -= 1
        except (StopAsyncIteration, asyncio.CancelledError):
            self.left += 1

    def factory(self, service_method: str, streaming_type: gRPCStreamingType) -> Callable[..., Any]:
        if streaming_type is gRPCStreamingType.STREAM_STREAM:
            return self._streamed

        async def passed(message: bytes, context: Any) -> bytes:
            self.passed.append((service_method.rpartition("/")[2], message))
            if isinstance(self.answer, ResponseStatus):
                set_grpc_code_and_details(context, self.answer)
                return b""
            return self.answer

        return passed


@pytest.fixture(autouse=True)
def nothing_stays_installed() -> Iterator[None]:
    options, add_address = list(DEFAULT_GRPC_SERVER_OPTIONS), default_impl.add_grpc_address
    yield
    DEFAULT_GRPC_SERVER_OPTIONS[:] = options
    default_impl.add_grpc_address = add_address


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Replicas:
    monkeypatch.setattr(auth, "Quotas", lambda: LocalQuotas(Clock()))
    return Replicas()


@contextlib.asynccontextmanager
async def started(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, **sections: Any
) -> AsyncIterator[grpc.aio.Channel]:
    """A server as Serve starts it; a channel to it."""
    port = free_port()
    sections = {"limits": Limits(body_mb=0.1), "connections": QUICK, **sections}
    settings = ServeSettings(grpc=Grpc(port=port), **sections)
    monkeypatch.setenv(SETTINGS, settings.model_dump_json())
    connections.install(settings)
    options = gRPCOptions(port=port, grpc_servicer_functions=[ADDRESS], enable_reflection=False)
    _, server = await start_grpc_server(replicas.factory, options, event_loop=asyncio.get_running_loop())
    try:
        unbounded = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(f"{settings.http.host}:{port}", unbounded) as channel:
            yield channel
    finally:
        await server.stop(0)


def rpc(channel: grpc.aio.Channel, method: str = "ModelInfer") -> Any:
    return channel.unary_unary(f"/{SERVICE}/{method}")


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value


def test_every_method_of_the_protocol_that_is_offered_is_passed_on_unread(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert {*METHODS, STREAM} <= set(known)

    async def main() -> None:
        async with started(replicas, monkeypatch) as channel:
            for method in METHODS:
                expected = IS_LIVE if method == "ServerLive" else b"answer"
                assert await rpc(channel, method)(b"\xff") == expected
            for method in set(known) - {*METHODS, STREAM} | {"__init__", "_infer"}:
                assert (await failure(rpc(channel, method)(b""))).code() is CODE.UNIMPLEMENTED

    asyncio.run(main())
    assert replicas.passed == [(method, b"" if method == "ServerReady" else b"\xff") for method in METHODS[1:]]
    assert service_pb2.ServerLiveResponse.FromString(IS_LIVE).live


def test_without_a_known_key_nothing_is_read_but_whether_it_lives(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch, keys=(ALICE,)) as channel:

            async def endless() -> AsyncIterator[bytes]:
                await asyncio.sleep(60)
                yield b""

            for method in METHODS:
                if method in ("ServerLive", "ServerReady"):
                    await rpc(channel, method)(b"x" * 1000)
                    continue
                call = channel.stream_unary(f"/{SERVICE}/{method}")(endless())
                refusal = await failure(asyncio.wait_for(call, 50))
                assert refusal.code() is CODE.UNAUTHENTICATED and "Bearer" in refusal.details()
            other = (("authorization", f"Bearer {new_key('alice')[0]}"),)
            assert (await failure(rpc(channel)(b"", metadata=other))).details() == "the key is not known"
            assert (await failure(rpc(channel)(b"", metadata=KEYED + KEYED))).code() is CODE.UNAUTHENTICATED

    asyncio.run(main())
    assert replicas.passed == [("ServerReady", b"")]


def test_a_key_over_its_rate_is_refused_until_it_has_requests_again(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch, keys=(ALICE,)) as channel:
            for _ in range(ALICE.burst):
                assert await rpc(channel)(b"m", metadata=KEYED) == b"answer"
            refusal = await failure(rpc(channel)(b"m", metadata=KEYED))
            assert refusal.code() is CODE.RESOURCE_EXHAUSTED and "3 requests at once" in refusal.details()
            assert dict(refusal.trailing_metadata())["retry-after"] == "4"

    asyncio.run(main())
    assert len(replicas.passed) == ALICE.burst


def test_messages_that_do_not_come_take_no_place(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch) as channel:

            async def nothing() -> AsyncIterator[bytes]:
                await asyncio.sleep(60)
                yield b""

            call = channel.stream_unary(f"/{SERVICE}/ModelInfer")(nothing())
            refusal = await failure(asyncio.wait_for(call, 50))
            assert refusal.code() is CODE.DEADLINE_EXCEEDED and "within 0.3 s" in refusal.details()

    asyncio.run(main())
    assert not replicas.passed


def test_answers_that_are_not_read_are_bounded(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas.answer = bytes(30_000_000)

    async def main() -> None:
        async with started(replicas, monkeypatch, connections=Connections(bodies_mb=100)) as channel:
            call = channel.stream_stream(f"/{SERVICE}/ModelInfer")()
            await call.write(b"")
            while not replicas.passed:
                await asyncio.sleep(0.01)
            refusal = await failure(rpc(channel)(b""))
            assert refusal.code() is CODE.UNAVAILABLE and "held" in refusal.details()
            assert len(await call.read()) == 30_000_000 and await call.code() is CODE.OK
            assert len(await rpc(channel)(b"")) == 30_000_000
            replicas.answer = bytes(60_000_000)
            refusal = await failure(rpc(channel)(b""))
            assert refusal.code() is CODE.RESOURCE_EXHAUSTED and "fewer outputs" in refusal.details()

    asyncio.run(main())


# ---- streams ---------------------------------------------------------------------------------------------------------


def stream(channel: grpc.aio.Channel, **options: Any) -> Any:
    return channel.stream_stream(f"/{SERVICE}/{STREAM}")(**options)


def sentence(part: bytes) -> str:
    return str(service_pb2.ModelStreamInferResponse.FromString(part).error_message)


async def read(call: Any, count: int) -> list[bytes]:
    return [await call.read() for _ in range(count)]


def test_messages_of_a_stream_are_answered_one_after_another(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ray.serve")
    monkeypatch.setattr(logging.getLogger("ray.serve"), "propagate", True)

    async def main() -> None:
        async with started(replicas, monkeypatch, logging=Logging(access=True)) as channel:
            call = stream(channel, metadata=(("traceparent", TRACE),))
            for number in range(2):
                await call.write(service_pb2.ModelInferRequest(model_name=f"m{number}").SerializeToString())
                assert await read(call, 3) == [b"0 answer", b"1 answer", b"2 answer"]
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF and await call.code() is CODE.OK
            assert dict(await call.trailing_metadata())["traceparent"] == TRACE

    asyncio.run(main())
    assert [method for method, _ in replicas.passed] == [STREAM] * 2
    lines = dict.fromkeys(each.getMessage() for each in caplog.records if each.getMessage().startswith("gRPC"))
    assert [line.partition(" key")[0] for line in lines] == ["gRPC ModelStreamInfer m0", "gRPC ModelStreamInfer m1"]
    assert all(": OK in " in line for line in lines)


def test_an_error_of_one_message_does_not_end_its_stream(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch, keys=(ALICE,)) as channel:
            assert (await failure(stream(channel).read())).code() is CODE.UNAUTHENTICATED
            call = stream(channel, metadata=KEYED)
            for answer, expected in (
                (ResponseStatus(CODE.INTERNAL, is_error=True, message="ray::x()\n  File secret.py"), errors.INTERNAL),
                (ResponseStatus(CODE.RESOURCE_EXHAUSTED, is_error=True, message="too many wait"), "too many wait"),
            ):
                replicas.answer = answer
                await call.write(b"m")
                assert sentence(await call.read()) == expected
            replicas.answer = b"answer"
            await call.write(b"m")
            assert len(await read(call, 3)) == 3
            await call.write(b"m")  # the fourth, of three at once
            assert "3 requests at once" in sentence(await call.read())
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF and await call.code() is CODE.OK

    asyncio.run(main())
    assert len(replicas.passed) == ALICE.burst


def test_a_stream_is_computed_as_it_is_read_and_no_further_when_its_client_leaves(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas.answer, replicas.parts = bytes(1_000_000), 500
    slow = Connections(unread_seconds=60, bodies_mb=100)

    async def main() -> None:
        async with started(replicas, monkeypatch, connections=slow) as channel:
            call = stream(channel)
            await call.write(b"m")
            await read(call, 5)
            before = -1
            while replicas.computed > before:  # until it rests
                before = replicas.computed
                await asyncio.sleep(0.3)
            assert replicas.computed < 100, "of 500 MB that nobody reads little is computed"
            call.cancel()
            while not replicas.left:
                await asyncio.sleep(0.01)
            assert replicas.computed < 100

    asyncio.run(main())


def test_a_stream_whose_answers_are_not_read_ends_and_one_without_messages_too(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas.answer, replicas.parts = bytes(1_000_000), 500
    monkeypatch.setattr(middleware_of_grpc, "IDLE_SECONDS", 0.2)

    async def main() -> None:
        async with started(replicas, monkeypatch, connections=QUICK.model_copy(update={"bodies_mb": 100})) as channel:
            call = stream(channel)
            await call.write(b"m")
            while not replicas.left:
                await asyncio.sleep(0.01)
            refusal = await failure(read(call, 500))
            assert refusal.code() is CODE.DEADLINE_EXCEEDED and "must be read within 0.3 s" in refusal.details()
            refusal = await failure(stream(channel).read())
            assert refusal.code() is CODE.DEADLINE_EXCEEDED and "must come within 0.2 s" in refusal.details()

    asyncio.run(main())


def test_an_owner_has_only_a_few_streams_and_gets_them_back(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch) as channel:  # half of 0.25 MiB for messages of 0.1
            one = stream(channel)
            await one.write(b"m")
            await read(one, 3)
            refusal = await failure(stream(channel).read())
            assert refusal.code() is CODE.UNAVAILABLE and "1 streams are open" in refusal.details()
            await one.write(bytes(200_000))
            assert (await failure(one.read())).code() is CODE.RESOURCE_EXHAUSTED
            another = stream(channel)
            await another.write(b"m")
            assert len(await read(another, 3)) == 3

    asyncio.run(main())


def test_messages_too_large_or_packed_are_refused(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch) as channel:
            assert (await failure(rpc(channel)(bytes(200_000)))).code() is CODE.RESOURCE_EXHAUSTED
            packed = rpc(channel)(bytes(90_000), compression=grpc.Compression.Gzip)
            assert (await failure(packed)).code() is CODE.UNIMPLEMENTED
            assert await rpc(channel)(bytes(90_000)) == b"answer"

    asyncio.run(main())
    assert len(replicas.passed) == 1


def test_many_messages_at_once_all_come_through(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of an owner are read at the same time; the others wait."""

    async def main() -> None:
        async with started(replicas, monkeypatch) as channel:
            answers = await asyncio.gather(*(rpc(channel)(bytes(10_000)) for _ in range(100)))
            assert answers == [b"answer"] * 100

    asyncio.run(main())


def test_failures_of_serve_tell_no_traceback(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch) as channel:
            replicas.answer = ResponseStatus(CODE.INTERNAL, is_error=True, message="ray::x()\n  File secret.py")
            refusal = await failure(rpc(channel)(b""))
            assert (refusal.code(), refusal.details()) == (CODE.INTERNAL, errors.INTERNAL)
            replicas.answer = ResponseStatus(CODE.RESOURCE_EXHAUSTED, is_error=True, message="too many wait")
            refusal = await failure(rpc(channel)(b""))
            assert (refusal.code(), refusal.details()) == (CODE.RESOURCE_EXHAUSTED, "too many wait")

    asyncio.run(main())


def test_the_log_names_model_key_and_trace_and_the_trace_comes_back(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ray.serve")
    monkeypatch.setattr(logging.getLogger("ray.serve"), "propagate", True)
    message = service_pb2.ModelInferRequest(model_name="su\nms").SerializeToString()

    async def main() -> None:
        async with started(replicas, monkeypatch, keys=(ALICE,), logging=Logging(access=True)) as channel:
            call = rpc(channel)(message, metadata=(*KEYED, ("traceparent", TRACE)))
            await call
            assert dict(await call.trailing_metadata())["traceparent"] == TRACE
            call = rpc(channel)(message, metadata=(("traceparent", "00-0-0-0"),))
            assert "traceparent" not in dict((await failure(call)).trailing_metadata())

    asyncio.run(main())
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("gRPC")]
    assert lines[0].startswith(rf"gRPC ModelInfer su\nms key alice trace {TRACE}: OK in ")
    assert lines[-1].startswith("gRPC ModelInfer key - trace -: UNAUTHENTICATED in ")


def test_it_listens_at_the_address_of_http_alone(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve would listen at every address."""

    async def main() -> None:
        async with started(replicas, monkeypatch, http=Http(host="127.0.0.2")) as channel:
            port = ServeSettings.model_validate_json(os.environ[SETTINGS]).grpc.port
            socket.create_connection(("127.0.0.2", port)).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            assert channel

    asyncio.run(main())


def test_connections_beyond_the_limit_are_not_served(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with started(replicas, monkeypatch) as channel:
            port = ServeSettings.model_validate_json(os.environ[SETTINGS]).grpc.port
            idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
            closed = select.poll()
            for connection in idle:
                closed.register(connection, select.POLLRDHUP)
            while len(closed.poll(0)) < 40 - QUICK.open:
                await asyncio.sleep(0.01)
            for connection in idle:
                connection.close()
            assert await rpc(channel)(b"", wait_for_ready=True, timeout=60) == b"answer"

    asyncio.run(main())


def test_no_server_starts_that_nothing_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (ServeSettings(), ServeSettings(grpc=Grpc())):
        monkeypatch.setenv(SETTINGS, settings.model_dump_json())
        with pytest.raises(ClusterError, match="nothing would bound it"):
            add_to_server(None, None)  # type: ignore[arg-type]
