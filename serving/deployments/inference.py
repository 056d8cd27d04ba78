"""Inference as a replica does it, however a request came: its model, its work, and the answer or the parts of a stream.

What a request may take is checked on the way: its memory, and its work against the quota of its key.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

from service.errors import AssayError, BusyError
from service.models import ModelCard
from serving import kinds
from serving.deployments.batching import LONG_GMACS, Batcher, Item
from serving.deployments.call import Call
from serving.deployments.computing import INLINE_BYTES, INLINE_MEMORY, Computing
from serving.deployments.memory import to_read
from serving.deployments.model_cache import ModelCache
from serving.deployments.statistics import ModelKey, Statistics
from serving.deployments.turns import Owner, Pause
from serving.http import protocol
from serving.http.errors import INTERNAL
from serving.http.exchange import LEFT
from serving.http.messages import Readable
from serving.http.owners import SHARE
from serving.http.protocol import InferRequest
from serving.http.quotas import Bucket, WorkQuotas
from serving.http.settings import ServeSettings
from serving.kinds.base import Endpoint
from serving.kinds.work import Answer, Work

logger = logging.getLogger("ray.serve")
T = TypeVar("T")


class Inference:
    """Of all models of a replica. Lives on one event loop."""

    def __init__(
        self, settings: ServeSettings, models: ModelCache, statistics: Statistics, computing: Computing
    ) -> None:
        self._most_streams, self._models, self._statistics = settings.limits.streams, models, statistics
        self._computing = computing
        batching = settings.batching
        self._batcher = Batcher(batching.max_rows, batching.parallel, computing, statistics.executed)
        self._quotas = WorkQuotas("inference", {key.name: Bucket.for_inference(key) for key in settings.keys})
        self._streams: Counter[str] = Counter()  # under way, by the name of the key

    @property
    def running(self) -> Counter[ModelKey]:
        """How many batches of each model are being computed."""
        return self._batcher.running

    async def offered(self, name: str, version: int | None, action: str) -> ModelCard:
        """The card of a model that has an action."""
        card = await self._models.card(name, version)
        kinds.check_offered(card, action)
        return card

    async def begin(self, call: Call, name: str, version: int | None, action: str) -> ModelCard:
        """The card of the model that is asked. From here on the request is counted.

        BusyError if it asks for a stream and no more are accepted now: before its work is paid for.
        """
        call.counted = True
        card = await self.offered(name, version, action)
        call.model = card.name, card.version
        if action == "infer_stream":
            self._check_streams(call.key or "")
        return card

    async def accept(self, call: Call, card: ModelCard, message: Readable) -> tuple[Endpoint, InferRequest, Work]:
        """From a message to work that only has to be computed, or the error that the client is to see."""
        endpoint = await self._models.endpoint(card, call.key or "")

        def parse() -> tuple[InferRequest, Work]:
            infer = message.parse(card.name, endpoint.upload)
            inputs = protocol.fitted(infer.inputs, endpoint.inputs)
            protocol.check_outputs(infer, (spec.name for spec in endpoint.outputs))
            return infer, endpoint.prepare(inputs, infer.parameters, message.form(infer))

        assert call.holding is not None
        memory = await to_read(message, endpoint.upload, self._computing, call.owner)
        call.holding.resize(memory)
        started = time.perf_counter()
        if message.size <= INLINE_BYTES and memory <= INLINE_MEMORY:
            infer, work = parse()
        else:
            infer, work = await self._computing.long(call.owner, lambda pause: parse())
        self._statistics.of((card.name, card.version)).compute_input.add(time.perf_counter() - started)
        call.holding.resize(work.memory)
        if work.gmacs >= LONG_GMACS:
            await self._quotas.reserve(call.key, work.gmacs)
        return endpoint, infer, work

    async def answer(self, call: Call, endpoint: Endpoint, work: Work) -> Answer:
        """Computed with others that ask the same. A client that leaves takes its request out of the batch."""
        item = Item(endpoint, work, asyncio.get_running_loop().create_future(), call.key or "")
        try:
            self._batcher.add(item)
            return await item.answer
        except asyncio.CancelledError:
            self._batcher.leave(item)
            raise

    def begin_stream(self, call: Call, endpoint: Endpoint, work: Work) -> Iterator[tuple[str, Answer]]:
        """What is to be computed step by step. BusyError if no more streams are accepted now; InputError: too long."""
        self._check_streams(call.key or "")
        answers = endpoint.stream(work)
        call.counted, call.streams = False, True  # it is counted, and its memory given back, when the stream ends
        return answers

    def _check_streams(self, key: str) -> None:
        """BusyError if there is no room for one more, of which a key may have half."""
        streams, most_of_key = self._streams.total(), max(1, int(SHARE * self._most_streams))
        if streams >= self._most_streams:
            raise BusyError(f"{streams} streamed answers are under way; no more are accepted now")
        if key and self._streams[key] >= most_of_key:
            raise BusyError(f"{most_of_key} streamed answers of the key are under way; no more are accepted now")

    async def parts(
        self,
        call: Call,
        card: ModelCard,
        answers: Iterator[tuple[str, Answer]],
        encode: Callable[[str, Answer], T],
        failure: Callable[[str], T],
    ) -> AsyncGenerator[T, None]:
        """The parts of a streamed answer; an error is the last. The next one is computed when it is asked for."""
        model_statistics = self._statistics.of((card.name, card.version))
        started, status, key = time.perf_counter(), LEFT, call.key or ""
        self._streams[key] += 1
        model_statistics.streams += 1
        try:
            async with contextlib.aclosing(self._steps(call.owner, answers)) as steps:
                async for event, answer in steps:
                    part = encode(event, answer)
                    model_statistics.streamed += 1
                    yield part
            status = 200
        except AssayError as error:
            status = error.http_status
            yield failure(str(error))
        except Exception:
            status = 500
            logger.exception("stream of model %s failed", card.name)
            yield failure(INTERNAL)
        finally:
            if call.holding:
                call.holding.close()
            self._streams[key] -= 1
            model_statistics.streams -= 1
            self._statistics.answered(call.model, status, time.perf_counter() - started, call.key)

    async def _steps(self, owner: Owner, values: Iterator[T]) -> AsyncGenerator[T, None]:
        """An iterator that computes, a step at a time in a turn of its owner; closed when nobody reads on."""
        done, one_at_a_time = object(), threading.Lock()  # a step goes on when nobody waits for it any more

        def step(pause: Pause) -> T | object:
            with one_at_a_time:
                return next(values, done)

        def close(pause: Pause) -> None:
            with one_at_a_time:
                getattr(values, "close", lambda: None)()

        try:
            while (value := await self._computing.long(owner, step)) is not done:
                yield value  # type: ignore[misc]
        finally:
            await self._computing.long(owner, close)
