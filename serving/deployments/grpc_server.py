"""The deployment where gRPC is asked for as well: Serve calls the method that is named as the request.

What a replica says of itself and of its models is what it says over HTTP, as a message of gRPC.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from ray.serve.grpc_util import RayServegRPCContext
from tritonclient.grpc import service_pb2

from service.errors import AssayError
from serving.deployments.call import Call
from serving.deployments.memory import Holding
from serving.deployments.server import INLINE_VALUES, Server, parse_version
from serving.grpc.errors import end, refuse
from serving.grpc.messages import InferMessage, encode_infer, parse
from serving.grpc.middleware import READY
from serving.http.errors import INTERNAL, shortened
from serving.http.exchange import LEFT
from serving.http.keys import HEADER
from serving.http.streams import AHEAD
from serving.kinds import kind_of
from serving.kinds.work import Answer

logger = logging.getLogger("ray.serve")

Context = RayServegRPCContext
FINAL = "triton_final_response"  # a parameter of an answer on a stream


class GrpcServer(Server):
    """A replica. Messages come as bytes: see serving.grpc.middleware."""

    async def ServerReady(self, message: bytes, grpc_context: Context) -> Message:
        return await self._describe("ServerReady", message, grpc_context)

    async def ServerMetadata(self, message: bytes, grpc_context: Context) -> Message:
        return await self._describe("ServerMetadata", message, grpc_context)

    async def ModelReady(self, message: bytes, grpc_context: Context) -> Message:
        return await self._describe("ModelReady", message, grpc_context)

    async def ModelMetadata(self, message: bytes, grpc_context: Context) -> Message:
        return await self._describe("ModelMetadata", message, grpc_context)

    async def ModelConfig(self, message: bytes, grpc_context: Context) -> Message:
        return await self._describe("ModelConfig", message, grpc_context)

    async def ModelStatistics(self, message: bytes, grpc_context: Context) -> Message:
        return await self._describe("ModelStatistics", message, grpc_context)

    async def RepositoryIndex(self, message: bytes, grpc_context: Context) -> Message:
        return await self._describe("RepositoryIndex", message, grpc_context)

    async def ModelInfer(self, message: bytes, grpc_context: Context) -> Message:
        def answer(call: Call) -> Awaitable[Message]:
            return self._infer_message(call, InferMessage.of(message))

        return await self._answer("ModelInfer", grpc_context, answer)

    async def ModelStreamInfer(
        self, messages: AsyncIterator[bytes], grpc_context: Context
    ) -> AsyncGenerator[Message, None]:
        """The answers to one message. messages: that one, and then an empty one for each answer that was sent on."""
        on_the_way = 0
        async with aclosing(self._stream_answers(await anext(messages), grpc_context)) as answers:
            async for answer in answers:
                yield answer
                on_the_way += 1
                while on_the_way >= AHEAD:
                    if await anext(messages, None) is None:
                        return  # the client left
                    on_the_way -= 1

    # ---- the parts of a call ----------------------------------------------------------------------------------------

    async def _describe(self, method: str, message: bytes, context: Context) -> Message:
        async def answer(call: Call) -> Message:
            request = parse(getattr(service_pb2, f"{method}Request"), message)
            tree = await self._tree(method, call, request)
            reply: Message = getattr(service_pb2, f"{method}Response")()
            return json_format.ParseDict(tree, reply, ignore_unknown_fields=True)

        return await self._answer(method, context, answer)

    async def _tree(self, method: str, call: Call, request: Any) -> Any:
        """What is said over HTTP, without the JSON."""
        if method == "RepositoryIndex":
            return {"models": await self._entries(request.ready)}
        if method in ("ServerReady", "ServerMetadata"):
            response = await (self._ready(call) if method == READY else self._describe_server(call))
        elif method == "ModelStatistics" and not request.name:
            response = await self._all_statistics(call)
        else:
            handlers = {
                "ModelReady": self._model_ready,
                "ModelMetadata": self._describe_model,
                "ModelConfig": self._model_config,
                "ModelStatistics": self._model_statistics,
            }
            version = parse_version(request.name, request.version or None)
            response = await handlers[method](call, request.name, version)
        tree = json.loads(bytes(response.body))
        return {"config": tree} if method == "ModelConfig" else tree

    async def _infer_message(self, call: Call, message: InferMessage) -> service_pb2.ModelInferResponse:
        version = parse_version(message.model, message.version or None)
        card = await self._inference.begin(call, message.model, version, "infer")
        endpoint, infer, work = await self._inference.accept(call, card, message)
        answer = await self._inference.answer(call, endpoint, work)
        started = time.perf_counter()
        encode = partial(encode_infer, card, infer, answer, work.parameters)
        reply = encode() if work.values <= INLINE_VALUES else await asyncio.to_thread(encode)
        self._statistics.of((card.name, card.version)).compute_output.add(time.perf_counter() - started)
        return reply

    async def _stream_answers(self, data: bytes, context: Context) -> AsyncGenerator[Message, None]:
        """An answer after each iteration where the model thinks in iterations; the last one says that it is final."""
        started, status = time.perf_counter(), LEFT
        call, request_id = Call(self._settings.queue.retry_after_seconds), ""
        try:
            self._take(call, context)
            message = InferMessage.of(data)
            version = parse_version(message.model, message.version or None)
            card = await self._inference.offered(message.model, version, "infer")
            if "infer_stream" not in kind_of(card).actions:
                yield _part(await self._infer_message(call, message), final=True)
                status = 200
                return
            await self._inference.begin(call, message.model, version, "infer_stream")
            endpoint, infer, work = await self._inference.accept(call, card, message)
            answers = self._inference.begin_stream(call, endpoint, work)
            request_id = infer.id

            def encode(event: str, answer: Answer) -> Message:
                return _part(encode_infer(card, infer, answer, work.parameters), final=event == "answer")

            parts = self._inference.parts(call, card, answers, encode, partial(_failure, request_id))
            async with aclosing(parts):
                async for part in parts:
                    yield part
            status = 200
        except AssayError as error:
            status = error.http_status
            yield _failure(request_id, str(error))
        except Exception:
            status = 500
            logger.exception("stream failed")
            yield _failure(request_id, INTERNAL)
        finally:
            if call.holding and not call.streams:
                call.holding.close()
            if call.counted:
                self._statistics.answered(call.model, status, time.perf_counter() - started, call.key)

    def _take(self, call: Call, context: Context) -> None:
        """Whose a call is: it was admitted in front; here the name of its key is needed."""
        if self._keyring:
            values = [str(value) for name, value in context.invocation_metadata() if name == HEADER]
            call.key = self._keyring.holder(values).name
        call.holding = Holding(self._memory, call.key or "")

    async def _answer(self, method: str, context: Context, answer: Callable[[Call], Awaitable[Message]]) -> Message:
        """The answer of a call, or nothing where its code is that of an error."""
        started, status = time.perf_counter(), 200
        call = Call(self._settings.queue.retry_after_seconds)
        try:
            if method != READY:
                self._take(call, context)
            return await answer(call)
        except AssayError as error:
            status = error.http_status
            refuse(context, error, call.retry_after)
        except Exception:
            status = 500
            logger.exception("call of %s failed", method)
            end(context)
        finally:
            if call.holding:
                call.holding.close()
            if call.counted:
                self._statistics.answered(call.model, status, time.perf_counter() - started, call.key)
        return Empty()


def _part(answer: service_pb2.ModelInferResponse, final: bool) -> Message:
    """An answer on a stream, marked as Triton does."""
    answer.parameters[FINAL].bool_param = final
    return service_pb2.ModelStreamInferResponse(infer_response=answer)


def _failure(request_id: str, sentence: str) -> Message:
    answer = service_pb2.ModelInferResponse(id=request_id)
    answer.parameters[FINAL].bool_param = True
    return service_pb2.ModelStreamInferResponse(error_message=shortened(sentence), infer_response=answer)
