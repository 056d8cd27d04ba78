"""Models in memory: loaded once, the longest unused leaves, and the store may be gone for a while."""

import asyncio
from collections.abc import Iterator

import pytest
from torch import nn

from service import models
from service.errors import ModelError, ModelNotFoundError, StoreError
from service.models import ModelCard
from service.store import Folder, open_store
from serving.http import model_cache as shelf_module
from serving.http.model_cache import Shelf
from serving.http.settings import Models, ServeSettings
from serving.kinds.endpoint import Endpoint
from serving.kinds.thinking import DeepThinking
from tests.serving.models import put


@pytest.fixture
def store(store_uri: str) -> Folder:
    folder = open_store(store_uri)
    for name in ("a", "b", "c"):
        put(folder, name)
    return folder


class Loads:
    """Counts what is loaded."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, card: ModelCard, network: nn.Module) -> Endpoint:
        self.names.append(f"{card.name}/{card.version}")
        return DeepThinking(card, network, ServeSettings())


@pytest.fixture
def loads() -> Iterator[Loads]:
    yield Loads()


def names(shelf: Shelf) -> list[str]:
    return [card.name for card in shelf.loaded]


def test_a_model_is_loaded_once_however_many_ask_at_once(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        shelf = Shelf(store, Models(), loads)
        found = await asyncio.gather(*[shelf.endpoint("a") for _ in range(20)])
        assert len(set(map(id, found))) == 1 and loads.names == ["a/1"]

    asyncio.run(test())


def test_whoever_asked_first_may_leave(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        shelf = Shelf(store, Models(), loads)
        first = asyncio.create_task(shelf.endpoint("a"))
        second = asyncio.create_task(shelf.endpoint("a"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).card.name == "a" and loads.names == ["a/1"]

    asyncio.run(test())


def test_the_longest_unused_model_leaves(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        shelf = Shelf(store, Models(loaded=2), loads)
        for name in ("a", "b", "a", "c"):
            await shelf.endpoint(name)
        assert names(shelf) == ["a", "c"]
        await shelf.endpoint("b")
        assert loads.names == ["a/1", "b/1", "c/1", "b/1"]

    asyncio.run(test())


def test_models_leave_when_their_weights_are_too_many(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        for name in ("x", "y"):
            put(store, name, width=100)  # 0.8 MB of weights each
        shelf = Shelf(store, Models(loaded_mb=2), loads)
        for name in ("a", "x", "y", "b"):
            await shelf.endpoint(name)
        assert len(names(shelf)) == 4
        put(store, "z", width=100)
        await shelf.endpoint("z")
        assert names(shelf) == ["y", "b", "z"]
        put(store, "large", width=400)
        with pytest.raises(ModelError, match="MiB of weights; models.loaded_mb is 2"):
            await shelf.endpoint("large")

    asyncio.run(test())


def test_versions(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        shelf = Shelf(store, Models(refresh_seconds=0), loads)
        assert (await shelf.endpoint("a")).card.version == 1
        put(store, "a", seed=1)
        assert (await shelf.endpoint("a")).card.version == 2
        assert (await shelf.endpoint("a", 1)).card.version == 1
        assert await shelf.versions("a") == [1, 2]
        with pytest.raises(ModelNotFoundError, match="no version 3"):
            await shelf.endpoint("a", 3)
        with pytest.raises(ModelNotFoundError, match="no model 'aa'"):
            await shelf.endpoint("aa")

    asyncio.run(test())


def test_what_is_known_is_served_while_the_store_is_out_of_reach(
    store: Folder, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        shelf = Shelf(store, Models(refresh_seconds=0), loads)
        await shelf.endpoint("a")

        def gone(*_: object) -> ModelCard:
            raise StoreError("the store is gone")

        monkeypatch.setattr(models, "find", gone)
        assert (await shelf.endpoint("a")).card.name == "a"
        with pytest.raises(StoreError):
            await shelf.endpoint("b")

    asyncio.run(test())


def test_a_damaged_model_is_said_to_be_one_and_tried_again(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        shelf = Shelf(store, Models(), loads)
        folder = store / "models" / "a" / "1"
        weights = folder.read(models.WEIGHTS)
        folder.write(models.WEIGHTS, weights[:-4] + b"\0\0\0\1")
        with pytest.raises(ModelError, match="sha256 differs"):
            await shelf.endpoint("a")
        folder.write(models.WEIGHTS, weights)
        assert (await shelf.endpoint("a")).card.name == "a"

    asyncio.run(test())


def test_cards_of_too_many_names_are_forgotten(store: Folder, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(shelf_module, "CARDS", 2)
        shelf = Shelf(store, Models(), loads)
        for name in ("a", "b", "c", "a"):
            assert (await shelf.card(name)).name == name
        assert len(shelf._cards) == 2

    asyncio.run(test())
