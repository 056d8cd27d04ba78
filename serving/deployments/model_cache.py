"""The models of a store in the memory of a replica: loaded when first asked for, the longest unused leaves.

The store is read again after a few seconds; while it is out of reach, the models that are known go on being served.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from service import models
from service.errors import ModelError, StoreError
from service.models import ModelCard
from service.store import Folder
from serving.http.settings import Models
from serving.kinds.base import Endpoint

Key = tuple[str, int, str]  # name, version, sha256: a store may have been emptied and filled again
CARDS = 1024  # cards remembered


class ModelCache:
    """Lives on one event loop; reads the store in threads. build: makes the endpoint of a loaded model."""

    def __init__(self, store: Folder, settings: Models, build: Callable[[ModelCard, nn.Module], Endpoint]) -> None:
        self._store, self._settings, self._build = store, settings, build
        self._cards: OrderedDict[tuple[str, int | None], tuple[float, ModelCard]] = OrderedDict()
        self._loaded: OrderedDict[Key, Endpoint] = OrderedDict()  # the latest used last
        self._loading: dict[Key, asyncio.Task[Endpoint]] = {}
        self._one_at_a_time = asyncio.Lock()  # so that memory holds one model more than allowed at most

    @property
    def loaded(self) -> list[ModelCard]:
        """The cards of the models in memory, the latest used last."""
        return [endpoint.card for endpoint in self._loaded.values()]

    async def cards(self) -> list[ModelCard]:
        """All models of the store."""
        return await asyncio.to_thread(models.list_models, self._store)

    async def check(self) -> None:
        """StoreError if the store is out of reach, so that nothing new can be loaded."""
        await asyncio.to_thread((self._store / "models").names)

    async def versions(self, name: str) -> list[int]:
        """The versions of a model, oldest first."""
        return await asyncio.to_thread(models.versions, self._store, name)

    async def card(self, name: str, version: int | None = None) -> ModelCard:
        """The card of a model, the newest version by default. ModelNotFoundError names the nearest."""
        key = name, version
        now = time.monotonic()
        known = self._cards.get(key)
        if known and now - known[0] < self._settings.refresh_seconds:
            return known[1]
        try:
            card = await asyncio.to_thread(models.find, self._store, name, version)
        except StoreError:
            if known:
                return known[1]
            raise
        self._cards[key] = now, card
        while len(self._cards) > CARDS:
            self._cards.popitem(last=False)
        return card

    async def endpoint(self, card: ModelCard) -> Endpoint:
        """A model ready to compute, loaded once however many ask for it. ModelError says why it cannot be."""
        key = card.name, card.version, card.sha256
        if endpoint := self._loaded.get(key):
            self._loaded.move_to_end(key)
            return endpoint
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.get_running_loop().create_task(self._load(key, card))
            task.add_done_callback(lambda done: self._loading.pop(key))
        return await asyncio.shield(task)  # if the first to ask leaves, the others still wait

    async def _load(self, key: Key, card: ModelCard) -> Endpoint:
        allowed = self._settings.loaded_mb * 2**20
        if card.bytes > allowed:
            raise ModelError(
                f"model {card.name!r} must have at most {self._settings.loaded_mb} MiB of weights (models.loaded_mb); "
                f"it has {card.bytes / 2**20:.0f}"
            )
        async with self._one_at_a_time:
            endpoint = await asyncio.to_thread(self._read, card)
            self._loaded[key] = endpoint
            while len(self._loaded) > self._settings.loaded or sum(each.bytes for each in self.loaded) > allowed:
                self._loaded.popitem(last=False)  # a request that computes with it keeps it alive until it is done
        return endpoint

    def _read(self, card: ModelCard) -> Endpoint:
        return self._build(card, models.load(self._store, card, self._settings.trusted))
