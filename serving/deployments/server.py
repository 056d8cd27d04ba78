"""The deployment: one process that takes HTTP requests and answers them with models of the store.

Its requests are those of serving.http.operations: the Open Inference Protocol v2, but for infer_stream, server-sent
events with an answer each; attack and sonify, which another deployment answers; and files that are uploaded, and that
come back, instead of tensors.
"""

import asyncio
import gzip
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from functools import partial
from importlib.metadata import version as version_of
from typing import Any, TypeVar

from ray.exceptions import TaskCancelledError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service import json_text
from service.errors import (
    AssayError,
    BusyError,
    InputError,
    MethodNotAllowedError,
    ModelError,
    ModelNotFoundError,
    UnsupportedError,
    shown,
)
from service.models import ModelCard
from service.store import open_store
from serving import kinds
from serving.deployments.attack_server import Reply
from serving.deployments.call import Call, HttpCall
from serving.deployments.computing import Computing
from serving.deployments.inference import Inference
from serving.deployments.memory import Holding, Memory
from serving.deployments.model_cache import ModelCache
from serving.deployments.replica import prepare_process
from serving.deployments.statistics import Statistics
from serving.http import metadata, middleware, protocol
from serving.http.auth import is_open
from serving.http.bodies import body_too_large
from serving.http.errors import INTERNAL, error_body, error_headers
from serving.http.exchange import LEFT
from serving.http.headers import Headers, size_of, values
from serving.http.keys import HEADER, Keyring
from serving.http.messages import Message
from serving.http.operations import OF_MODEL, NoSuchPathError, Router
from serving.http.protocol import InferRequest
from serving.http.settings import ServeSettings
from serving.http.streams import EventStream
from serving.http.traces import HEADER as TRACE_HEADER
from serving.http.traces import trace_of
from serving.http.uploads import PNG_MEDIA, WAV_MEDIA
from serving.kinds.work import Answer, Work

logger = logging.getLogger("ray.serve")
T = TypeVar("T")

# of those of Triton's that a client may look for. Not "model_repository": of it only the index is there
EXTENSIONS = ["binary_tensor_data", "model_configuration", "parameters", "statistics"]
JSON_MEDIA, BINARY_MEDIA = "application/json", "application/octet-stream"
COMPRESSED_BYTES = 16 << 10  # a smaller answer is sent as it is
INLINE_VALUES = 1 << 12  # an answer of more numbers is written in a thread


class Server:
    """A replica. Its constructor opens the store; models are loaded when they are asked for.

    attacks: the deployment that attacks and sonifies; None: both are switched off.
    """

    def __init__(self, settings: ServeSettings, store_uri: str, attacks: DeploymentHandle[Any] | None) -> None:
        middleware.check_keys_required(settings)
        device, store = prepare_process(settings.replicas, "replicas"), open_store(store_uri)
        build = partial(kinds.endpoint, settings=settings, device=device, store=store)
        self._settings = settings
        self._keyring = Keyring(settings.keys)
        self._attacks = attacks
        self._optimising: Counter[str] = Counter()  # requests to attack or sonify that are under way, by key
        self._models = ModelCache(store, settings.models, build)
        self._statistics = Statistics()
        self._memory = Memory(settings.queue.memory_mb)
        self._computing = Computing(settings.batching.parallel)
        self._inference = Inference(settings, self._models, self._statistics, self._computing)
        self._router = Router()

    # ---- HTTP -----------------------------------------------------------------------------------------------------

    async def __call__(self, request: Request) -> Response:
        started = time.perf_counter()
        call = HttpCall(request, self._settings.queue.retry_after_seconds)
        try:
            if self._keyring and not is_open(request.method, request.scope["path"], call.headers):
                call.key = self._keyring.holder(values(request.scope, HEADER)).name  # the pipeline has admitted it
            call.holding = Holding(self._memory, call.key or "")
            response = await self._route(call)
        except AssayError as error:
            response = _failure(str(error), error.http_status, call.retry_after)
            response.headers.update(error_headers(error))
        except (
            ClientDisconnect,
            TaskCancelledError,
        ):  # its body was on the way from the server that it is connected to
            response = Response(status_code=LEFT)
        except Exception:
            trace = trace_of(call.headers.get(TRACE_HEADER))
            logger.exception("request failed: %s %s, trace %s", request.method, request.scope["path"], trace)
            response = _failure(INTERNAL, 500, call.retry_after)
        finally:
            if call.holding and not call.streams:
                call.holding.close()
        if len(response.body) >= COMPRESSED_BYTES:
            response = await _compressed(response, call.headers)
        if call.counted:
            self._statistics.answered(call.model, response.status_code, time.perf_counter() - started, call.key)
        return response

    async def _route(self, call: HttpCall) -> Response:
        operation, parts = self._router.find(call.request.scope)
        handler: Callable[..., Awaitable[Response]] = getattr(self, f"_{operation.handler}")
        if not operation.paths[0].startswith(OF_MODEL):
            return await handler(call)
        name = parts["name"]
        return await handler(call, name, parse_version(name, parts.get("version")))

    # ---- the server and its models ----------------------------------------------------------------------------------

    async def _describe_server(self, call: Call) -> Response:
        return _json({"name": "assay", "version": version_of("assay"), "extensions": EXTENSIONS})

    async def _live(self, call: Call) -> Response:
        return _json({"live": True})

    async def _ready(self, call: Call) -> Response:
        await self._models.check()
        return _json({"ready": True})

    async def _all_statistics(self, call: Call) -> Response:
        return _json(self._statistics.tree(self._inference.running))

    async def _list_models(self, call: Call) -> Response:
        cards = await self._models.cards()
        newest = {card.name: card for card in cards}
        obstacles = {name: await self._models.obstacle(card, loading=False) for name, card in newest.items()}
        actions = {
            name: kinds.actions_of(card, self._settings.switched_off)
            for name, card in newest.items()
            if not obstacles[name]
        }
        return _json(metadata.list_models(cards, actions, obstacles))

    async def _load_model(self, call: Call) -> Response:
        raise UnsupportedError(
            "models cannot be loaded or unloaded on request: each replica loads a model when it is first asked for, "
            "and the longest unused leaves",
            "models.loaded in the settings of the server is how many stay",
        )

    async def _index(self, call: HttpCall) -> Response:
        return _json(await self._entries(protocol.parse_index(await self._body(call))))

    async def _entries(self, ready_only: bool) -> list[dict[str, Any]]:
        loaded = {(card.name, card.version) for card in self._models.loaded}
        entries: list[dict[str, Any]] = []
        for card in await self._models.cards():
            reason = await self._models.obstacle(card, loading=False)
            if ready_only and reason:
                continue
            entry = {"name": card.name, "version": str(card.version), "reason": reason}
            entry["state"] = "UNAVAILABLE" if reason else "READY"
            entries.append({**entry, "loaded": (card.name, card.version) in loaded})
        return entries

    async def _describe_model(self, call: Call, name: str, version: int | None) -> Response:
        card = await self._served(name, version)
        versions = await self._models.versions(name)
        return _json(metadata.describe_model(card, versions, kinds.offer(card, self._settings)))

    async def _model_config(self, call: Call, name: str, version: int | None) -> Response:
        card = await self._served(name, version)
        offer = kinds.offer(card, self._settings)
        return _json(metadata.configuration(card, offer, self._settings.batching))

    async def _model_ready(self, call: Call, name: str, version: int | None) -> Response:
        card = await self._models.card(name, version)
        if obstacle := await self._models.obstacle(card, loading=True, owner=call.key or ""):
            raise NotReady(obstacle)
        return _json({"name": name, "ready": True})

    async def _model_statistics(self, call: Call, name: str, version: int | None) -> Response:
        card = await self._models.card(name, version)
        self._statistics.of((card.name, card.version))
        return _json(self._statistics.tree(self._inference.running, name, version))

    # ---- inference ------------------------------------------------------------------------------------------------

    async def _infer(self, call: HttpCall, name: str, version: int | None) -> Response:
        card = await self._inference.begin(call, name, version, "infer")
        endpoint, infer, work = await self._inference.accept(call, card, await self._read(call))
        answer = await self._inference.answer(call, endpoint, work)
        started = time.perf_counter()
        if (rendering := work.rendering) is not None:
            body, json_length = await self._computing.long(call.owner, lambda pause: rendering.encode(answer)), None
            media = rendering.media_type
        else:
            encode = partial(protocol.encode_infer, endpoint.card, infer, answer, work.parameters)
            body, json_length = encode() if work.values <= INLINE_VALUES else await asyncio.to_thread(encode)
            media = JSON_MEDIA if json_length is None else BINARY_MEDIA
        self._statistics.of((card.name, card.version)).compute_output.add(time.perf_counter() - started)
        headers = {} if json_length is None else {protocol.HEADER_LENGTH: str(json_length)}
        return Response(body, headers=headers, media_type=media)

    async def _infer_stream(self, call: HttpCall, name: str, version: int | None) -> Response:
        card = await self._inference.begin(call, name, version, "infer_stream")
        return await self._stream(call, card, await self._read(call))

    async def _infer_stream_of_query(self, call: HttpCall, name: str, version: int | None) -> Response:
        if call.request.method == "HEAD":
            raise MethodNotAllowedError("HEAD", call.request.scope["path"], ("GET", "POST"))
        card = await self._inference.begin(call, name, version, "infer_stream")
        return await self._stream(call, card, Message.of_query(call.request.scope, call.headers))

    async def _stream(self, call: Call, card: ModelCard, message: Message) -> Response:
        endpoint, infer, work = await self._inference.accept(call, card, message)
        if infer.all_binary or any(output.binary for output in infer.outputs or ()):
            raise InputError("a streamed answer is JSON; ask for binary outputs at infer")
        answers = self._inference.begin_stream(call, endpoint, work)
        events = self._events(call, card, infer, work, answers)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventStream(events, headers)

    def _events(
        self, call: Call, card: ModelCard, infer: InferRequest, work: Work, answers: Iterator[tuple[str, Answer]]
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events."""

        def encode(event: str, answer: Answer) -> bytes:
            body, _ = protocol.encode_infer(card, infer, answer, work.parameters)
            return b"event: %s\ndata: %s\n\n" % (event.encode(), body)

        def failure(sentence: str) -> bytes:
            return b"event: error\ndata: %s\n\n" % error_body(sentence)

        return self._inference.parts(call, card, answers, encode, failure)

    # ---- attacks and sonification -----------------------------------------------------------------------------------

    async def _attack(self, call: HttpCall, name: str, version: int | None) -> Response:
        return await self._optimised(call, name, version, "attack")

    async def _sonify(self, call: HttpCall, name: str, version: int | None) -> Response:
        return await self._optimised(call, name, version, "sonify")

    async def _optimised(self, call: HttpCall, name: str, version: int | None, action: str) -> Response:
        """Passed on unread. When the client leaves, Serve cancels this coroutine, and with it the call that waits."""
        card = await self._inference.offered(name, version, action)
        if self._attacks is None or action in self._settings.switched_off:
            raise NoSuchPathError(f"{action!r} is switched off in the settings of this server")
        call.retry_after = self._settings.attacks.queue.retry_after_seconds
        message, key = await self._read(call), call.key or ""
        if key and self._optimising[key] >= (most := self._settings.attacks.most_of_key):
            raise BusyError(f"{most} requests of the key to attack or sonify are under way; no more are accepted now")
        model_statistics = self._statistics.of((card.name, card.version))
        reply = Reply(500, b"")
        model_statistics.attacks += 1
        self._optimising[key] += 1
        try:
            reply = await self._attacks.optimise.remote(action, card, message, call.key)
        except BackPressureError:
            reply = Reply(503, error_body(f"too many requests to {action} wait; no more are accepted now"))
        except asyncio.CancelledError:
            reply = Reply(LEFT, b"")
            raise
        finally:
            model_statistics.attacks -= 1
            self._optimising[key] -= 1
            self._statistics.attacked((card.name, card.version), reply, call.key)
        headers = {**_retry(reply.status, call.retry_after), **reply.headers}
        return Response(reply.body, reply.status, headers, reply.media_type)

    # ---- the parts of a request -------------------------------------------------------------------------------------

    async def _read(self, call: HttpCall) -> Message:
        return Message.of(call.request.scope, call.headers, await self._body(call))

    async def _body(self, call: HttpCall) -> bytes:
        """The whole body, decompressed. ClientDisconnect if the client leaves before its end."""
        limit = self._settings.limits.body_bytes
        parts: list[bytes] = []
        size, more = size_of(call.headers.get("content-length", "")) or 0, True
        if size <= limit:
            size = 0
            while more and size <= limit:
                message = await call.request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
        if size > limit:
            raise body_too_large(limit)
        body, encoding = b"".join(parts), call.headers.get("content-encoding", "")
        if encoding:
            body = await asyncio.to_thread(protocol.decompress, body, encoding, limit)
            assert call.holding is not None
            call.holding.resize(len(body))
        return body

    async def _served(self, name: str, version: int | None) -> ModelCard:
        """The card of a model that has an endpoint."""
        card = await self._models.card(name, version)
        kinds.kind_of(card)
        return card


class NotReady(ModelError):
    """What the protocol asks for about a model that cannot be served."""

    http_status = 404


def _json(value: Any) -> Response:
    return Response(json_text.dumps(value, marked=False), media_type="application/json")


async def _compressed(response: Response, headers: Headers) -> Response:
    """The response in gzip, if its client reads that and it is no file. headers: of the request."""
    if response.media_type in (PNG_MEDIA, WAV_MEDIA) or not protocol.accepts_gzip(headers.get("accept-encoding", "")):
        return response
    body = await asyncio.to_thread(gzip.compress, response.body, 1)
    kept = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(body, response.status_code, kept | {"content-encoding": "gzip", "vary": "Accept-Encoding"})


def _failure(message: str, status: int, retry_after: float) -> Response:
    return Response(error_body(message), status, _retry(status, retry_after), "application/json")


def _retry(status: int, seconds: float) -> dict[str, str]:
    return {"Retry-After": f"{seconds:.0f}"} if status == 503 else {}


def parse_version(name: str, text: str | None) -> int | None:
    """The version that a path names; None: the newest."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ModelNotFoundError(f"model {shown(name)} has no version {shown(text)}", hint="versions are whole numbers")
    return int(text)
