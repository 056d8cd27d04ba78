"""What is in front of the replicas in every gRPC server of Serve, as serving.http.middleware is in its HTTP servers.

A call is admitted by its key before its message is read; then the message is read, bounded and in time, before the call
takes a place at a replica. Messages are passed on unread, as bytes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import grpc
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve._private.proxy_request_response import gRPCStreamingType

from service.errors import AssayError, BusyError, ClusterError, InputError, TooLargeError, TooSlowError
from serving.grpc.connections import is_installed
from serving.grpc.errors import CODES, end, refuse
from serving.grpc.streams import PassedStream, answers, failure
from serving.grpc.wire import fields
from serving.http import access_log
from serving.http.auth import Admission
from serving.http.bodies import Body, Held
from serving.http.errors import INTERNAL, shortened
from serving.http.keys import HEADER
from serving.http.middleware import given_settings
from serving.http.owners import SHARE
from serving.http.settings import Key, ServeSettings
from serving.http.traces import HEADER as TRACE_HEADER
from serving.http.traces import NONE, trace_of

SERVICE = "inference.GRPCInferenceService"
LIVE, READY = "ServerLive", "ServerReady"  # need no key and have no message
METHODS = (
    *(LIVE, READY, "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer"),
    "RepositoryIndex",
)
STREAM = "ModelStreamInfer"
IDLE_SECONDS = 60.0  # after which a stream without a message is ended
UNSET = 0  # the code of a call that has none yet
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
    streamed = server.service_handler_factory(f"/{SERVICE}/{STREAM}", gRPCStreamingType.STREAM_STREAM)
    handlers[STREAM] = grpc.stream_stream_rpc_method_handler(partial(calls.handle_stream, streamed))
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
        self._held = Held(self._connections.bodies_bytes)  # messages and answers
        self._limit = settings.limits.body_bytes
        self._most = self._connections.bodies_bytes
        self._at_once = max(1, int(SHARE * self._most) // self._limit)
        self._streams: Counter[str] = Counter()  # that are open, by owner
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
            self._log(call, code, began)

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

    async def handle_stream(self, passed: PassedStream, messages: AsyncIterator[bytes], context: Any) -> None:
        """A stream: its messages are answered one after another. An error of one of them does not end it."""
        call, began = Call(STREAM, context), time.perf_counter()
        try:
            key = self._key_of(call)
            with self._opened(call.owner):
                async with aclosing(self._messages(messages)) as each:
                    async for message in each:
                        await self._answer_part(call, key, passed, message)
        except AssayError as error:
            refuse(context, error)
            self._log(call, call.code, began)
        finally:
            call.give_trace_back()

    async def _messages(self, messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await anext(messages)
            except TimeoutError:
                raise TooSlowError(f"the next message of a stream must come within {IDLE_SECONDS:g} s") from None
            except StopAsyncIteration:
                return
            yield message

    async def _answer_part(self, call: Call, key: Key | None, passed: PassedStream, message: bytes) -> None:
        """Answer one message of a stream. TooSlowError if the answers are not read: that ends the stream."""
        began, code = time.perf_counter(), grpc.StatusCode.CANCELLED
        call.model = _model(message)
        try:
            if key:
                await self._admission.spend(key)
            call.context.set_code(UNSET)  # Serve sets the code of an answer only where none is set
            call.context.set_details("")
            with self._hold(call.owner) as body:
                body.append(message)
                async with aclosing(answers(passed, body.take(), call.context)) as parts:
                    async for part in parts:
                        await self._write_in_time(call, part)
            code = call.code
            if code is not grpc.StatusCode.OK:  # of Serve or Ray
                await self._write_in_time(call, failure(INTERNAL if "\n" in call.details else call.details))
        except TooSlowError:
            raise
        except AssayError as error:
            code = CODES.get(error.http_status, grpc.StatusCode.INTERNAL)
            await self._write_in_time(call, failure(shortened(str(error))))
        finally:
            end(call.context, grpc.StatusCode.OK, "")
            self._log(call, code, began)

    async def _write_in_time(self, call: Call, part: bytes) -> None:
        seconds = self._connections.unread_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._write(call, part)
        except TimeoutError:
            raise TooSlowError(f"answers must be read within {seconds:g} s (connections.unread_seconds)") from None

    @contextmanager
    def _opened(self, owner: str) -> Iterator[None]:
        """gRPC holds the part of a message that is there, so an owner has only a few streams at once."""
        if self._streams[owner] >= self._at_once:
            raise BusyError(f"{self._at_once} streams are open; no more are accepted now")
        self._streams[owner] += 1
        try:
            yield
        finally:
            self._streams[owner] -= 1
            if not self._streams[owner]:
                del self._streams[owner]

    async def _admit(self, call: Call) -> None:
        if key := self._key_of(call):
            await self._admission.spend(key)

    def _key_of(self, call: Call) -> Key | None:
        """The key of a call, where keys are required."""
        if not self._settings.keys:
            return None
        key = self._admission.holder(call.values(HEADER))
        call.key = key.name
        return key

    def _log(self, call: Call, code: grpc.StatusCode, began: float) -> None:
        if self._settings.logging.access:
            access_log.log("gRPC", f"{call.method} {call.model}".strip(), call.key, call.trace, code.name, began)

    def _hold(self, owner: str) -> Body:
        return Body(self._held, owner)

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
