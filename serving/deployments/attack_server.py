"""The deployment that attacks and sonifies: processes of its own, so that long searches delay no inference.

The deployment that takes HTTP requests passes them on unread; all of their work is done here.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from service.errors import AssayError
from service.models import ModelCard
from service.store import open_store
from serving import kinds
from serving.deployments.computing import Computing
from serving.deployments.memory import Holding, Memory, to_read
from serving.deployments.model_cache import ModelCache
from serving.deployments.replica import prepare_process
from serving.deployments.turns import Pause
from serving.http import protocol
from serving.http.errors import INTERNAL, error_body, error_headers
from serving.http.messages import Message
from serving.http.protocol import InferRequest
from serving.http.quotas import Bucket, WorkQuotas
from serving.http.settings import ServeSettings
from serving.kinds.base import Endpoint
from serving.kinds.work import Answer, Attacked, AttackWork

logger = logging.getLogger("ray.serve")

NAME = "attacks"
NICE = 19  # the lowest priority: where cores are short, inference gets them first


@dataclass(frozen=True)
class Spent:
    """What a request took: seconds of computation, 10^9 multiplications, passes forward (queries) and backward
    (gradients) of all inputs."""

    seconds: float = 0.0
    gmacs: float = 0.0
    queries: int = 0
    gradients: int = 0


@dataclass(frozen=True)
class Reply:
    """An HTTP response, and for the statistics what it took."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    spent: Spent = Spent()


class AttackServer:
    """A replica. Requests are computed in threads, a few at a time, in turn."""

    def __init__(self, settings: ServeSettings, store_uri: str) -> None:
        device, store = prepare_process(settings.replicas, "attacks.replicas"), open_store(store_uri)
        build = partial(kinds.endpoint, settings=settings, device=device, store=store)
        os.nice(NICE)
        self._settings = settings
        self._models = ModelCache(store, settings.models, build)
        self._computing = Computing(settings.attacks.parallel)
        self._memory = Memory(settings.queue.memory_mb)
        self._quotas = WorkQuotas("attack", {key.name: Bucket.for_attacks(key) for key in settings.keys})

    async def optimise(self, action: str, card: ModelCard, message: Message, key: str | None) -> Reply:
        """The answer to a request to attack or to sonify a model, also when something is wrong with it.

        action: "attack" or "sonify". key: the name of the key whose quota it uses, None where no keys are required.
        Cancelled when the client leaves: the work stops before its next pass through the model.
        """
        holding, owner = Holding(self._memory, key or ""), (key or "", card.name)
        try:
            endpoint = await self._models.endpoint(card, key or "")
            holding.resize(await to_read(message, endpoint.upload, self._computing, owner))
            request, work = await self._computing.long(owner, lambda pause: self._accept(action, endpoint, message))
            return await self._reply(card, request, work, key)
        except AssayError as error:
            return Reply(error.http_status, error_body(str(error)), headers=error_headers(error))
        except Exception:
            logger.exception("%s of model %s failed, trace %s", action, card.name, message.trace)
            return Reply(500, error_body(INTERNAL))
        finally:
            holding.close()

    def _accept(self, action: str, endpoint: Endpoint, message: Message) -> tuple[InferRequest, AttackWork]:
        sonifies = action == "sonify"
        request = message.parse(endpoint.card.name, endpoint.upload, needs_inputs=not sonifies)
        form = message.form(request)
        if sonifies:
            work = endpoint.prepare_sonification(request, form, self._settings.sonification)
        else:
            work = endpoint.prepare_attack(request, form, self._settings.attacks)
        protocol.check_outputs(request, work.outputs)
        return request, work

    async def _reply(self, card: ModelCard, request: InferRequest, work: AttackWork, key: str | None) -> Reply:
        attacked, spent = await self._compute(card, work, key)
        answer = attacked.answer
        if (rendering := work.rendering) is not None:
            body = await self._computing.long((key or "", card.name), lambda pause: rendering.encode(answer))
            return Reply(200, body, rendering.media_type, _headers(answer, attacked.warnings), spent)
        parameters = dict(work.parameters)
        if attacked.warnings:
            parameters["warning"] = "; ".join(attacked.warnings)
        body, json_length = await asyncio.to_thread(protocol.encode_infer, card, request, answer, parameters)
        if json_length is None:
            return Reply(200, body, spent=spent)
        headers = {protocol.HEADER_LENGTH: str(json_length)}
        return Reply(200, body, "application/octet-stream", headers, spent)

    async def _compute(self, card: ModelCard, work: AttackWork, key: str | None) -> tuple[Attacked, Spent]:
        """Attack within the quota of the key: reserve the most that it may take, give back what it did not need."""
        stopped, passes, cost = threading.Event(), 0, work.cost

        def compute(pause: Pause) -> tuple[Attacked, float]:
            def is_stopped() -> bool:
                nonlocal passes
                passes += 1  # called before each pass forward
                pause()
                return stopped.is_set()

            started = time.perf_counter()
            attacked = work.compute(is_stopped)
            return attacked, time.perf_counter() - started

        await self._quotas.reserve(key, cost.gmacs)
        spent = None
        try:
            attacked, seconds = await self._computing.long((key or "", card.name), compute)
            queries, gradients = (int(attacked.answer[name].sum()) for name in ("queries", "gradients"))
            gmacs = (queries + gradients) * cost.gmacs_of_pass / work.rows
            spent = Spent(seconds, gmacs, queries, gradients)
        finally:
            stopped.set()
            # of an attack that did not finish, the passes back are not known: at most as many as forward
            self._quotas.give_back(key, cost.gmacs - (spent.gmacs if spent else 2 * passes * cost.gmacs_of_pass))
        return attacked, spent


def _headers(answer: Answer, warnings: tuple[str, ...]) -> dict[str, str]:
    """The outputs about the one input of an answer, as headers: Assay-Successful: true."""
    headers = {
        f"Assay-{name.replace('_', '-').title()}": str(values[0].item()).lower()
        for name, values in answer.items()
        if values.ndim == 1
    }
    return headers | ({"Assay-Warning": "; ".join(warnings)} if warnings else {})
