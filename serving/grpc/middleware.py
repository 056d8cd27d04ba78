"""What is in front of the replicas in every gRPC server of Serve, as serving.http.middleware is in its HTTP servers.

A call is admitted by its key before its message is read; then the message is read, bounded and in time, before the call
takes a place at a replica. Messages are passed on unread, as bytes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import grpc
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve._private.proxy_request_response import gRPCStreamingType

from service.errors import AssayError, ClusterError, InputError, TooLargeError, TooSlowError
from serving.grpc.connections import is_installed
from serving.grpc.errors import end, refuse
from serving.grpc.wire import fields
from serving.http import access_log
from serving.http.auth import Admission
from serving.http.bodies import SHARE, Body
from serving.http.keys import HEADER
from serving.http.middleware import given_settings
from serving.http.settings import ServeSettings
from serving.http.traces import HEADER as TRACE_HEADER
from serving.http.traces import NONE, trace_of

SERVICE = "inference.GRPCInferenceService"
LIVE, READY = "ServerLive", "ServerReady"  # need no key and have no message
METHODS = (
    *(LIVE, READY, "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer"),
    "RepositoryIndex",
)
IS_LIVE = b"\x08\x01"  # a ServerLiveResponse
ADDRESS = "serving.grpc.middleware.add_to_server"  # as Serve is told of it

Passed = Callable[[bytes, Any], Awaitable[bytes]]  # to a replica, by Serve


def add_to_server(servicer: object, server: gRPCGenericServer) -> None:
    """Called by Serve for each gRPC server, before it starts. servicer: a stand-in, of which nothing is used."""
    settings = given_settings()
    if settings.grpc is None or not is_installed(settings):
        raise ClusterError("the gRPC server of Serve has not the settings of the endpoints: nothing would bound it")
    calls = Calls(settings)
    handlers = {}
    for method in METHODS:
        passed = server.service_handler_factory(f"/{SERVICE}/{method}", gRPCStreamingType.UNARY_UNARY)
        # on the wire a call with one message is a stream of one: so it begins before its message is there
        handlers[method] = grpc.stream_stream_rpc_method_handler(partial(calls.handle, method, passed))
    server.add_passthrough_service(SERVICE)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class Call:
    """One call. key: the name of its key. model: whom it asks."""

    def __init__(self, method: str, context: Any) -> None:
        self.method, self.context = method, context
        self.metadata = [(name, str(value)) for name, value in context.invocation_metadata()]
        self.trace = trace_of(next(iter(self.values(TRACE_HEADER)), None))
        self.key = access_log.NO_KEY
        self.model = ""

    def values(self, name: str) -> list[str]:
        """What the metadata holds under a name."""
        return [value for each, value in self.metadata if each == name]

    @property
    def owner(self) -> str:
        """Whose its message is: of a key, or of an address where there are no keys."""
        address, _, _ = str(self.context.peer()).rpartition(":")
        return address if self.key == access_log.NO_KEY else self.key

    @property
    def code(self) -> grpc.StatusCode:
        return self.context.code() or grpc.StatusCode.OK  # 0 where none was set

    @property
    def details(self) -> str:
        return str(self.context.details())

    def give_trace_back(self) -> None:
        if self.trace != NONE:
            self.context.set_trailing_metadata([*self.context.trailing_metadata(), (TRACE_HEADER, self.trace)])


class Calls:
    """The calls to one server."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings, self._connections = settings, settings.connections
        self._admission = Admission(settings.keys)
        self._held: Counter[str] = Counter()  # bytes of messages and of answers by owner
        self._limit = settings.limits.body_bytes
        self._most = self._connections.bodies_bytes
        self._at_once = max(1, int(SHARE * self._most) // self._limit)
        self._reading: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by owner

    async def handle(self, method: str, passed: Passed, messages: AsyncIterator[bytes], context: Any) -> None:
        """One call: its answer is written, or the code of an error set."""
        call, began, code = Call(method, context), time.perf_counter(), grpc.StatusCode.CANCELLED
        try:
            await self._answer(call, passed, messages)
            code = call.code
        except AssayError as error:
            refuse(context, error)
            code = call.code
        finally:
            call.give_trace_back()
            if self._settings.logging.access:
                access_log.log("gRPC", f"{method} {call.model}".strip(), call.key, call.trace, code.name, began)

    async def _answer(self, call: Call, passed: Passed, messages: AsyncIterator[bytes]) -> None:
        if call.method == LIVE:
            await call.context.write(IS_LIVE)
            return
        message = b""
        if call.method != READY:
            await self._admit(call)
        with self._hold(call.owner) as body:
            if call.method != READY:
                body.append(await self._read(call.owner, messages))
                message = body.take()
                call.model = _model(message)
            answer = await passed(message, call.context)
        if call.code is grpc.StatusCode.OK:
            await self._write(call, answer)
        elif "\n" in call.details:  # of Serve or Ray, with its traceback: a sentence of the replica has one line
            end(call.context)

    async def _admit(self, call: Call) -> None:
        if self._settings.keys:
            key = self._admission.holder(call.values(HEADER))
            call.key = key.name
            await self._admission.spend(key)

    @contextmanager
    def _hold(self, owner: str) -> Iterator[Body]:
        body = Body(self._held, owner, self._most)
        try:
            yield body
        finally:
            body.release()

    async def _read(self, owner: str, messages: AsyncIterator[bytes]) -> bytes:
        """The message. gRPC holds the part of one that is there, so an owner has only a few on their way at once."""
        turn = self._reading.get(owner) or asyncio.Semaphore(self._at_once)
        self._reading[owner] = turn
        async with turn:
            try:
                async with asyncio.timeout(self._connections.body_seconds):
                    return await anext(messages)
            except TimeoutError:
                raise TooSlowError(
                    f"the message must come within {self._connections.body_seconds:g} s (connections.body_seconds)"
                ) from None
            except StopAsyncIteration:
                raise TooLargeError(
                    f"the call has no message, or one of more than {self._limit:,} bytes (limits.body_mb)"
                ) from None

    async def _write(self, call: Call, answer: bytes) -> None:
        """gRPC holds what the client has not read. So an owner that reads nothing soon gets no answers."""
        if len(answer) > SHARE * self._most:
            raise TooLargeError(
                f"an answer must have at most {int(SHARE * self._most):,} bytes, half of connections.bodies_mb; "
                f"this one has {len(answer):,}",
                "ask for fewer outputs, or over HTTP",
            )
        with self._hold(call.owner) as body:
            body.append(answer)
            await call.context.write(answer)


def _model(message: bytes) -> str:
    """Whom a message asks: the first field of all that ask a model is its name. Nothing else of it is read."""
    try:
        number, contents = next(fields(message))
    except (InputError, StopIteration):
        return ""
    return bytes(contents[: access_log.LONGEST]).decode(errors="replace") if number == 1 else ""
