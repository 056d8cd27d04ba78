"""The deployment where gRPC is asked for as well: Serve calls the method that is named as the request.

What a replica says of itself and of its models is what it says over HTTP, as a message of gRPC.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
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
from serving.http.keys import HEADER

logger = logging.getLogger("ray.serve")

Context = RayServegRPCContext


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
        return await self._answer("ModelInfer", grpc_context, lambda call: self._infer_message(call, message))

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

    async def _infer_message(self, call: Call, data: bytes) -> Message:
        message = InferMessage.of(data)
        version = parse_version(message.model, message.version or None)
        card = await self._begin(call, message.model, version, "infer")
        endpoint, infer, work = await self._accept(call, card, message)
        answer = await self._batched(call, endpoint, work)
        started = time.perf_counter()
        encode = partial(encode_infer, card, infer, answer, work.parameters)
        reply: Message = encode() if work.values <= INLINE_VALUES else await asyncio.to_thread(encode)
        self._statistics.of((card.name, card.version)).compute_output.add(time.perf_counter() - started)
        return reply

    async def _answer(self, method: str, context: Context, answer: Callable[[Call], Awaitable[Message]]) -> Message:
        """The answer of a call, or nothing where its code is that of an error."""
        started, status = time.perf_counter(), 200
        call = Call(self._settings.queue.retry_after_seconds)
        try:
            if self._keyring and method != READY:  # it was admitted in front; here its name is needed
                values = [str(value) for name, value in context.invocation_metadata() if name == HEADER]
                call.key = self._keyring.holder(values).name
            call.holding = Holding(self._memory, call.key or "")
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
