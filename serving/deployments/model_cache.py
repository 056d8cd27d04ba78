"""The models of a store in the memory of a replica: loaded when first asked for, the longest unused leaves.

What the store holds is looked up again after a few seconds; when the store is out of reach, what is known goes on being
served.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from torch import nn

from service import models
from service.errors import ModelError, StoreError
from service.models import ModelCard
from service.store import Folder
from serving.http.settings import Models
from serving.kinds.endpoint import Endpoint

Loaded = TypeVar("Loaded", bound=Endpoint)
Key = tuple[str, int, str]  # name, version, sha256: a store may have been emptied and filled again
CARDS = 1024  # cards remembered


class Shelf(Generic[Loaded]):
    """Lives on one event loop; reads the store in threads. serve: makes the endpoint of a loaded model."""

    def __init__(self, store: Folder, settings: Models, serve: Callable[[ModelCard, nn.Module], Loaded]) -> None:
        self._store, self._settings, self._serve = store, settings, serve
        self._cards: OrderedDict[tuple[str, int | None], tuple[float, ModelCard]] = OrderedDict()
        self._loaded: OrderedDict[Key, Loaded] = OrderedDict()  # the latest used last
        self._loading: dict[Key, asyncio.Task[Loaded]] = {}
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
        return [card.version for card in await self.cards() if card.name == name]

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

    async def endpoint(self, name: str, version: int | None = None) -> Loaded:
        """A model ready to compute, loaded once however many ask for it. ModelError says why it cannot be."""
        card = await self.card(name, version)
        key = card.name, card.version, card.sha256
        if endpoint := self._loaded.get(key):
            self._loaded.move_to_end(key)
            return endpoint
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.get_running_loop().create_task(self._load(key, card))
            task.add_done_callback(lambda done: self._loading.pop(key))
        return await asyncio.shield(task)  # whoever asked first may leave; others wait too

    async def _load(self, key: Key, card: ModelCard) -> Loaded:
        allowed = self._settings.loaded_mb * 2**20
        if card.bytes > allowed:
            raise ModelError(
                f"model {card.name!r} has {card.bytes / 2**20:.0f} MiB of weights; models.loaded_mb is "
                f"{self._settings.loaded_mb}"
            )
        async with self._one_at_a_time:
            endpoint = await asyncio.to_thread(self._read, card)
            self._loaded[key] = endpoint
            while len(self._loaded) > self._settings.loaded or sum(each.bytes for each in self.loaded) > allowed:
                self._loaded.popitem(last=False)  # what is being computed with it keeps it alive until it is done
        return endpoint

    def _read(self, card: ModelCard) -> Loaded:
        return self._serve(card, models.load(self._store, card, self._settings.trusted))
