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

from service.errors import AssayError, InputError
from service.models import ModelCard
from service.store import open_store
from serving import attack, protocol
from serving.attack import Attacked, AttackWork
from serving.classification import Classification
from serving.edge import error_body
from serving.endpoint import Answer
from serving.images import MODES, PNG_MEDIA, to_png
from serving.message import Message
from serving.protocol import InferRequest
from serving.settings import ServeSettings
from serving.shelf import Shelf

logger = logging.getLogger("ray.serve")

NAME = "attacks"
NICE = 19  # the most: where cores are short, inference gets them first
INTERNAL = "internal error; the log of the replica says more"


@dataclass(frozen=True)
class Spent:
    """What an attack took: seconds of computation, passes forward (queries) and backward (gradients) of all images."""

    seconds: float = 0.0
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
        self._shelf: Shelf[Classification] = Shelf(open_store(store_uri), settings.models, self._serve)
        self._threads = ThreadPoolExecutor(self._limits.parallel, thread_name_prefix="attack")

    def _serve(self, card: ModelCard, network: nn.Module) -> Classification:
        return Classification(card, network, self._settings)

    async def attack(self, name: str, version: int, message: Message) -> Reply:
        """The answer to a request for an attack on a classifier, whatever is wrong with it.

        Cancelled when the client leaves: the attack stops at its next pass through the model.
        """
        try:
            model = await self._shelf.endpoint(name, version)
            request, work = await asyncio.to_thread(self._accept, model, message)
            return await self._computed(model, request, work, message.wants_png)
        except AssayError as error:
            return Reply(error.http_status, error_body(str(error)))
        except Exception:
            logger.exception("attack on model %s failed", name)
            return Reply(500, error_body(INTERNAL))

    def _accept(self, model: Classification, message: Message) -> tuple[InferRequest, AttackWork]:
        request = message.parse(model)
        protocol.check_wanted(request, attack.OUTPUTS)
        work = attack.prepare(model, request, message.is_image, self._limits)
        if message.wants_png and (len(work.images), work.images.shape[1] in MODES) != (1, True):
            raise InputError("a PNG is the answer for one grey or colour image; ask for application/json")
        return request, work

    async def _computed(self, model: Classification, request: InferRequest, work: AttackWork, png: bool) -> Reply:
        stopped = threading.Event()

        def compute() -> tuple[Attacked, float]:
            started = time.perf_counter()
            attacked = attack.compute(model, work, self._limits, stopped.is_set)
            return attacked, time.perf_counter() - started

        try:
            attacked, seconds = await asyncio.get_running_loop().run_in_executor(self._threads, compute)
        finally:
            stopped.set()
        answer = attacked.answer
        spent = Spent(seconds, int(answer["queries"].sum()), int(answer["gradients"].sum()))
        if png:
            headers = _headers(answer, attacked.warnings)
            return Reply(200, to_png(answer["adversarials"][0]), PNG_MEDIA, headers, spent)
        parameters = {**work.described(), **({"warning": "; ".join(attacked.warnings)} if attacked.warnings else {})}
        body, header = await asyncio.to_thread(protocol.encode_infer, model.card, request, answer, parameters)
        if header is None:
            return Reply(200, body, spent=spent)
        headers = {protocol.HEADER_LENGTH: str(header)}
        return Reply(200, body, "application/octet-stream", headers, spent)


def _headers(answer: Answer, warnings: tuple[str, ...]) -> dict[str, str]:
    """What there is to say of the one image of an answer, as headers: Assay-Broken: true."""
    headers = {
        f"Assay-{name.replace('_', '-').title()}": str(values[0].item()).lower()
        for name, values in answer.items()
        if name != "adversarials"
    }
    return headers | ({"Assay-Warning": "; ".join(warnings)} if warnings else {})
