"""The models of a store in the memory of a replica: loaded when first asked for, the longest unused leaves.

A key that asks for one model after another takes neither the memory nor the time of others: a model leaves of the key
that holds the most, which is whose it was when it was used last; and the models that a key waits for are loaded one by
one, those of other keys between them. The store is read again after a few seconds; while it is out of reach, the
models that are known go on being served.
"""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from service import models
from service.errors import ModelError, StoreError
from service.models import ModelCard
from service.store import Folder
from serving import kinds
from serving.http.owners import leaving
from serving.http.settings import Models
from serving.http.store_errors import unreadable
from serving.kinds.base import Endpoint

T = TypeVar("T")

Key = tuple[str, int, str]  # name, version, sha256: a store may have been emptied and filled again
THREADS = 4  # that read the store
CARDS = 1024  # cards remembered, and outcomes


@dataclass
class Loaded:
    """A model in memory. owner: the name of the key that used it last; empty where no keys are required."""

    endpoint: Endpoint
    owner: str

    @property
    def card(self) -> ModelCard:
        return self.endpoint.card


@dataclass(frozen=True)
class Outcome:
    """Of trying a model. loaded: it was to be loaded, not only checked. obstacle: why it cannot be; empty if it can."""

    loaded: bool
    obstacle: str = ""


class ModelCache:
    """Lives on one event loop; reads the store in threads. build: makes the endpoint of a loaded model."""

    def __init__(self, store: Folder, settings: Models, build: Callable[[ModelCard, nn.Module], Endpoint]) -> None:
        self._store, self._settings, self._build = store, settings, build
        self._cards: OrderedDict[tuple[str, int | None], tuple[float, ModelCard]] = OrderedDict()
        self._listed: asyncio.Task[list[ModelCard]] | None = None
        self._loaded: OrderedDict[Key, Loaded] = OrderedDict()  # the latest used last
        self._loading: dict[tuple[str, Key], asyncio.Task[Endpoint]] = {}  # by who asked as well
        self._lines: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # in which the loads of a key wait
        self._outcomes: OrderedDict[Key, Outcome] = OrderedDict()
        # threads of its own: large answers that are written would keep all others busy for seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._listed_until = self._reached_until = 0.0
        self._one_at_a_time = asyncio.Lock()  # so that memory holds one model more than allowed at most

    @property
    def loaded(self) -> list[ModelCard]:
        """The cards of the models in memory, the latest used last."""
        return [each.card for each in self._loaded.values()]

    async def cards(self) -> list[ModelCard]:
        """All models of the store. However many ask for them, they are read once in a while."""
        listed, now = self._listed, time.monotonic()
        if listed is None or (listed.done() and (now >= self._listed_until or listed.exception())):
            listed = self._listed = asyncio.ensure_future(self._in_thread(models.list_models, self._store))
            self._listed_until = now + self._settings.refresh_seconds
        return await asyncio.shield(listed)

    async def check(self) -> None:
        """StoreError if the store is out of reach, so that nothing new can be loaded.

        Nobody needs a key to ask for it, so that the store is asked no oftener than for a card.
        """
        if time.monotonic() < self._reached_until:
            return
        await self._in_thread((self._store / "models").names)
        self._reached_until = time.monotonic() + self._settings.refresh_seconds

    async def versions(self, name: str) -> list[int]:
        """The versions of a model, oldest first."""
        return await self._in_thread(models.versions, self._store, name)

    async def card(self, name: str, version: int | None = None) -> ModelCard:
        """The card of a model, the newest version by default. ModelNotFoundError names the nearest."""
        key = name, version
        now = time.monotonic()
        known = self._cards.get(key)
        if known and now - known[0] < self._settings.refresh_seconds:
            return known[1]
        try:
            card = await self._in_thread(models.find, self._store, name, version)
        except StoreError:
            if known:
                return known[1]
            raise
        self._cards[key] = now, card
        while len(self._cards) > CARDS:
            self._cards.popitem(last=False)
        return card

    async def obstacle(self, card: ModelCard, loading: bool, owner: str = "") -> str:
        """Why a model cannot be served, in a sentence; empty if it has been loaded before, or can be.

        loading: it is loaded to see that, unless it has been; otherwise its card and the size of its weights say so.
        owner: as of `endpoint`.
        """
        key = card.name, card.version, card.sha256
        outcome = self._outcomes.get(key)
        if outcome is not None and (not loading or (outcome.loaded and not outcome.obstacle)):
            return outcome.obstacle
        try:
            kinds.kind_of(card)
            if loading:
                await self.endpoint(card, owner)
            else:
                self._check_size(card)
                await self._in_thread(models.check, self._store, card, self._settings.trusted)
                self._note(key, Outcome(loaded=False))
        except (ModelError, StoreError) as error:
            return str(error)
        return ""

    async def endpoint(self, card: ModelCard, owner: str = "") -> Endpoint:
        """A model ready to compute, loaded once however many ask for it. ModelError says why it cannot be.

        owner: the name of the key that asks.
        """
        key = card.name, card.version, card.sha256
        if loaded := self._loaded.get(key):
            loaded.owner = owner
            self._loaded.move_to_end(key)
            return loaded.endpoint
        asked = owner, key
        task = self._loading.get(asked)
        if task is None:
            task = self._loading[asked] = asyncio.get_running_loop().create_task(self._load(key, card, owner))
            task.add_done_callback(lambda done: self._loading.pop(asked))
        return await asyncio.shield(task)  # if the first to ask leaves, the others still wait

    async def _load(self, key: Key, card: ModelCard, owner: str) -> Endpoint:
        try:
            self._check_size(card)
            async with self._lines[owner], self._one_at_a_time:
                if (loaded := self._loaded.get(key)) is None:  # else another key has asked for it meanwhile
                    loaded = self._loaded[key] = Loaded(await self._in_thread(self._read, card), owner)
                    self._make_room()
        except ModelError as error:
            self._note(key, Outcome(loaded=True, obstacle=str(error)))
            raise
        self._note(key, Outcome(loaded=True))
        return loaded.endpoint

    def _make_room(self) -> None:
        """Let models go until the others fit. A request that computes with one keeps it alive until it is done."""
        while (many := len(self._loaded) > self._settings.loaded) or self._bytes > self._settings.loaded_mb * 2**20:
            sizes = {key: (each.owner, 1 if many else each.card.bytes) for key, each in self._loaded.items()}
            del self._loaded[leaving(sizes)]

    @property
    def _bytes(self) -> int:
        """Of the weights in memory."""
        return sum(each.card.bytes for each in self._loaded.values())

    def _check_size(self, card: ModelCard) -> None:
        if card.bytes > self._settings.loaded_mb * 2**20:
            raise ModelError(
                f"model {card.name!r} must have at most {self._settings.loaded_mb} MiB of weights (models.loaded_mb); "
                f"it has {card.bytes / 2**20:.0f}"
            )

    def _note(self, key: Key, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        self._outcomes.move_to_end(key)
        while len(self._outcomes) > CARDS:
            self._outcomes.popitem(last=False)

    def _read(self, card: ModelCard) -> Endpoint:
        return self._build(card, models.load(self._store, card, self._settings.trusted))

    async def _in_thread(self, read: Callable[..., T], *arguments: Any) -> T:
        """What is read from the store. A StoreError does not say where that is."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read, *arguments)
        except StoreError as error:
            raise unreadable(error) from error
