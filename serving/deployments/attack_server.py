"""The deployment that attacks: processes of their own, so that a long attack holds up no inference.

The deployment that takes HTTP requests hands them on as they are; all of their work is done here.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import nn

from service.errors import AssayError, InputError, OverLimitError
from service.models import ModelCard
from service.store import open_store
from serving.http import protocol
from serving.http.body_limit import error_body, error_headers
from serving.http.messages import Message
from serving.http.model_cache import Shelf
from serving.http.protocol import InferRequest
from serving.http.quotas import Bucket, Ledger
from serving.http.settings import ServeSettings
from serving.http.uploads import MODES, PNG_MEDIA, to_png
from serving.kinds import classification_attack, segmentation_attack
from serving.kinds.classification import Classification
from serving.kinds.classification_attack import Attacked, AttackWork
from serving.kinds.endpoint import Answer
from serving.kinds.segmentation import Segmentation

Attackable = Classification | Segmentation

logger = logging.getLogger("ray.serve")

NAME = "attacks"
NICE = 19  # the most: where cores are short, inference gets them first
INTERNAL = "internal error; the log of the replica says more"


@dataclass(frozen=True)
class Spent:
    """What an attack took: seconds of computation, 10^9 multiplications, passes forward (queries) and backward
    (gradients) of all images."""

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
    """A replica. Attacks are computed in threads; whoever comes meanwhile waits for one."""

    def __init__(self, settings: ServeSettings, store_uri: str) -> None:
        torch.set_num_threads(settings.replicas.threads)  # Ray reuses workers, whatever they were set to before
        os.nice(NICE)
        self._settings, self._limits = settings, settings.attacks
        self._shelf: Shelf[Attackable] = Shelf(open_store(store_uri), settings.models, self._serve)
        self._threads = ThreadPoolExecutor(self._limits.parallel, thread_name_prefix="attack")
        self._ledger = Ledger()
        self._buckets = {key.name: Bucket.of_attacks(key) for key in settings.keys}

    def _serve(self, card: ModelCard, network: nn.Module) -> Attackable:
        kind = Segmentation if card.task == "segmentation" else Classification
        return kind(card, network, self._settings)

    async def attack(self, name: str, version: int, message: Message, key: str | None) -> Reply:
        """The answer to a request for an attack on a model, whatever is wrong with it.

        key: the name of who pays for it, None where no keys are asked for.
        Cancelled when the client leaves: the attack stops at its next pass through the model.
        """
        try:
            model = await self._shelf.endpoint(name, version)
            request, work = await asyncio.to_thread(self._accept, model, message)
            return await self._computed(model, request, work, message.wants_png, key)
        except AssayError as error:
            return Reply(error.http_status, error_body(str(error)), headers=error_headers(error))
        except Exception:
            logger.exception("attack on model %s failed", name)
            return Reply(500, error_body(INTERNAL))

    def _accept(self, model: Attackable, message: Message) -> tuple[InferRequest, AttackWork]:
        request = message.parse(model)
        work: AttackWork
        if isinstance(model, Segmentation):
            work = segmentation_attack.prepare(model, request, self._limits)
        else:
            work = classification_attack.prepare(model, request, message.is_image, self._limits)
        protocol.check_wanted(request, work.outputs)
        if message.wants_png and (len(work.images), work.images.shape[1] in MODES) != (1, True):
            raise InputError("a PNG is the answer for one grey or colour image; ask for application/json")
        return request, work

    async def _computed(
        self, model: Attackable, request: InferRequest, work: AttackWork, png: bool, key: str | None
    ) -> Reply:
        stopped, passes = threading.Event(), 0
        at_most, of_pass = classification_attack.gmacs_of(model, work), model.gmacs(work.images.shape)

        def is_stopped() -> bool:
            nonlocal passes
            passes += 1  # asked before each pass forward
            return stopped.is_set()

        def compute() -> tuple[Attacked, float]:
            started = time.perf_counter()
            attacked = classification_attack.compute(model, work, self._limits, is_stopped)
            return attacked, time.perf_counter() - started

        await self._reserve(key, at_most)
        spent = None
        try:
            attacked, seconds = await asyncio.get_running_loop().run_in_executor(self._threads, compute)
            queries, gradients = (int(attacked.answer[name].sum()) for name in ("queries", "gradients"))
            spent = Spent(seconds, (queries + gradients) * of_pass / len(work.images), queries, gradients)
        finally:
            stopped.set()
            # of an attack that was not finished the passes back are not known: no more than those forward
            self._settle(key, at_most - (spent.gmacs if spent else 2 * passes * of_pass))
        answer = attacked.answer
        if png:
            headers = _headers(answer, attacked.warnings)
            return Reply(200, to_png(answer["adversarials"][0]), PNG_MEDIA, headers, spent)
        parameters = {**work.described(), **({"warning": "; ".join(attacked.warnings)} if attacked.warnings else {})}
        body, header = await asyncio.to_thread(protocol.encode_infer, model.card, request, answer, parameters)
        if header is None:
            return Reply(200, body, spent=spent)
        headers = {protocol.HEADER_LENGTH: str(header)}
        return Reply(200, body, "application/octet-stream", headers, spent)

    async def _reserve(self, key: str | None, gmacs: float) -> None:
        """Take the most that an attack may need. OverLimitError if its key has not as much left."""
        if key is None:
            return
        bucket = self._buckets[key]
        if gmacs > bucket.capacity:
            raise InputError(
                f"the attack takes up to {gmacs:.3g} billion multiplications; "
                f"the key has {bucket.capacity:.3g} in an hour",
                "send fewer images, or ask for fewer steps, restarts or queries",
            )
        _, seconds = await self._ledger.take(bucket, gmacs)
        if seconds:
            raise OverLimitError(
                f"the attack takes up to {gmacs:.3g} billion multiplications, more than the key has left of its "
                f"{bucket.capacity:.3g} in an hour",
                seconds,
            )

    def _settle(self, key: str | None, left: float) -> None:
        if key is not None and left > 0:
            self._ledger.give_back(self._buckets[key], left)


def _headers(answer: Answer, warnings: tuple[str, ...]) -> dict[str, str]:
    """What there is to say of the one image of an answer, as headers: Assay-Broken: true."""
    headers = {
        f"Assay-{name.replace('_', '-').title()}": str(values[0].item()).lower()
        for name, values in answer.items()
        if values.ndim == 1
    }
    return headers | ({"Assay-Warning": "; ".join(warnings)} if warnings else {})
