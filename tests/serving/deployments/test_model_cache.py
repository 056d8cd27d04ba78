"""Models in memory: loaded once, the longest unused leaves, and the store may be gone for a while."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from service import models
from service.errors import ModelError, ModelNotFoundError, StoreError
from service.models import ModelCard
from service.store import Folder, open_store
from serving.deployments import model_cache
from serving.deployments.model_cache import ModelCache
from serving.http.settings import Models, ServeSettings
from serving.kinds.base import Endpoint
from serving.kinds.thinking import DeepThinking
from tests.serving.models import draft, network, put


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
        return DeepThinking(card, network, ServeSettings(), torch.device("cpu"))


@pytest.fixture
def loads() -> Iterator[Loads]:
    yield Loads()


async def endpoint(cache: ModelCache, name: str, version: int | None = None, owner: str = "") -> Endpoint:
    return await cache.endpoint(await cache.card(name, version), owner)


def names(cache: ModelCache) -> list[str]:
    return [card.name for card in cache.loaded]


def test_a_model_is_loaded_once_however_many_ask_at_once(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        cache = ModelCache(store, Models(), loads)
        endpoints = await asyncio.gather(*[endpoint(cache, "a") for _ in range(20)])
        assert len(set(map(id, endpoints))) == 1 and loads.names == ["a/1"]

    asyncio.run(test())


def test_whoever_asked_first_may_leave(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        cache = ModelCache(store, Models(), loads)
        first = asyncio.create_task(endpoint(cache, "a"))
        second = asyncio.create_task(endpoint(cache, "a"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).card.name == "a" and loads.names == ["a/1"]

    asyncio.run(test())


def test_the_longest_unused_model_leaves(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        cache = ModelCache(store, Models(loaded=2), loads)
        for name in ("a", "b", "a", "c"):
            await endpoint(cache, name)
        assert names(cache) == ["a", "c"]
        await endpoint(cache, "b")
        assert loads.names == ["a/1", "b/1", "c/1", "b/1"]

    asyncio.run(test())


def test_models_leave_when_their_weights_are_too_many(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        for name in ("x", "y"):
            put(store, name, width=100)  # 0.8 MB of weights each
        cache = ModelCache(store, Models(loaded_mb=2), loads)
        for name in ("a", "x", "y", "b"):
            await endpoint(cache, name)
        assert len(names(cache)) == 4
        put(store, "z", width=100)
        await endpoint(cache, "z")
        assert names(cache) == ["y", "b", "z"]
        put(store, "large", width=400)
        with pytest.raises(ModelError, match="must have at most 2 MiB of weights .models.loaded_mb."):
            await endpoint(cache, "large")

    asyncio.run(test())


def test_a_key_that_asks_for_all_models_takes_the_memory_of_no_other(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        for name in ("d", "e", "f"):
            put(store, name)
        cache = ModelCache(store, Models(loaded=4), loads)
        for name in ("a", "b", "c"):
            await endpoint(cache, name, owner="alice")
        for name in ("d", "e", "f") * 2:
            await endpoint(cache, name, owner="mallory")
        assert names(cache) == ["b", "c", "e", "f"]
        await endpoint(cache, "b", owner="mallory")  # alice uses it no more
        await endpoint(cache, "d", owner="alice")
        assert names(cache) == ["c", "f", "b", "d"]

    asyncio.run(test())


def test_a_key_that_asks_for_large_models_takes_the_memory_of_no_other(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        for name in ("x", "y", "z"):
            put(store, name, width=100)  # 0.8 MB of weights each
        cache = ModelCache(store, Models(loaded_mb=2), loads)
        await endpoint(cache, "x", owner="alice")
        for name in ("y", "z", "y", "z"):
            await endpoint(cache, name, owner="mallory")
        assert names(cache) == ["x", "z"]

    asyncio.run(test())


def test_a_key_that_asks_for_all_models_lets_others_load_theirs(store: Folder) -> None:
    read: list[str] = []

    class Slow(Loads):
        def __call__(self, card: ModelCard, network: nn.Module) -> Endpoint:
            time.sleep(0.05)
            read.append(card.name)
            return super().__call__(card, network)

    async def test() -> None:
        for name in ("d", "e", "f"):
            put(store, name)
        cache = ModelCache(store, Models(), Slow())
        greedy = [asyncio.ensure_future(endpoint(cache, name, owner="mallory")) for name in "bcdef"]
        while not cache._loading:
            await asyncio.sleep(0.001)
        both = await asyncio.gather(endpoint(cache, "a", owner="alice"), endpoint(cache, "f", owner="alice"))
        assert [each.card.name for each in both] == ["a", "f"]
        assert {"a", "f"} <= set(read[:5]), "each waits behind one of the other key's"
        await asyncio.gather(*greedy)
        assert sorted(read) == list("abcdef")  # once, though two keys asked for f

    asyncio.run(test())


def test_all_models_are_read_once_in_a_while_however_many_ask_for_them(
    store: Folder, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of models it takes seconds, and others wait to read the store."""
    calls: list[int] = []
    list_models = models.list_models

    def counted(folder: Folder) -> list[ModelCard]:
        calls.append(1)
        if len(calls) == 1:
            raise StoreError("cannot read it")
        return list_models(folder)

    monkeypatch.setattr(models, "list_models", counted)

    async def test() -> None:
        cache = ModelCache(store, Models(refresh_seconds=100), loads)
        with pytest.raises(StoreError):
            await cache.cards()
        for cards in await asyncio.gather(*[cache.cards() for _ in range(20)], cache.cards()):
            assert [card.name for card in cards] == ["a", "b", "c"]
        assert len(calls) == 2
        cache = ModelCache(store, Models(refresh_seconds=0), loads)
        put(store, "d")
        assert len(await cache.cards()) == 4

    asyncio.run(test())


def test_versions(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        cache = ModelCache(store, Models(refresh_seconds=0), loads)
        assert (await endpoint(cache, "a")).card.version == 1
        put(store, "a", seed=1)
        assert (await endpoint(cache, "a")).card.version == 2
        assert (await endpoint(cache, "a", 1)).card.version == 1
        assert await cache.versions("a") == [1, 2]
        with pytest.raises(ModelNotFoundError, match="no version 3"):
            await endpoint(cache, "a", 3)
        with pytest.raises(ModelNotFoundError, match="no model 'aa'"):
            await endpoint(cache, "aa")

    asyncio.run(test())


def test_what_is_known_is_served_while_the_store_is_out_of_reach(
    store: Folder, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        cache = ModelCache(store, Models(refresh_seconds=0), loads)
        await endpoint(cache, "a")

        def gone(*_: object) -> ModelCard:
            raise StoreError("cannot read /home/alice/store: it is gone")

        monkeypatch.setattr(models, "find", gone)
        assert (await endpoint(cache, "a")).card.name == "a"
        with pytest.raises(StoreError, match="^the store cannot be read; the log of the replica says more$"):
            await endpoint(cache, "b")

    asyncio.run(test())


def test_whoever_asks_for_readiness_does_not_make_the_store_be_read_each_time(
    store: Folder, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key is needed for it."""
    reads: list[Folder] = []
    names = Folder.names
    monkeypatch.setattr(Folder, "names", lambda folder: reads.append(folder) or names(folder))

    async def asked(refresh_seconds: float) -> int:
        cache, before = ModelCache(store, Models(refresh_seconds=refresh_seconds), loads), len(reads)
        for _ in range(3):
            await cache.check()
        return len(reads) - before

    assert asyncio.run(asked(100)) == 1 and asyncio.run(asked(0)) == 3


def test_the_store_is_read_whatever_keeps_other_threads_busy(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        cache, go_on = ModelCache(store, Models(), loads), threading.Event()
        busy = [asyncio.ensure_future(asyncio.to_thread(go_on.wait)) for _ in range(64)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(5):
                assert (await cache.card("a")).name == "a"
        finally:
            go_on.set()
            await asyncio.gather(*busy)

    asyncio.run(test())


def test_a_damaged_model_is_said_to_be_one_and_tried_again(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        cache = ModelCache(store, Models(), loads)
        folder = store / "models" / "a" / "1"
        weights = folder.read(models.WEIGHTS)
        folder.write(models.WEIGHTS, weights[:-4] + b"\0\0\0\1")
        with pytest.raises(ModelError, match="sha256 differs"):
            await endpoint(cache, "a")
        folder.write(models.WEIGHTS, weights)
        assert (await endpoint(cache, "a")).card.name == "a"

    asyncio.run(test())


def test_cards_of_too_many_names_are_forgotten(store: Folder, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(model_cache, "CARDS", 2)
        cache = ModelCache(store, Models(), loads)
        for name in ("a", "b", "c", "a"):
            assert (await cache.card(name)).name == name
        assert len(cache._cards) == 2

    asyncio.run(test())


def test_ready_is_what_has_been_or_could_be_loaded(store: Folder, loads: Loads) -> None:
    async def test() -> None:
        cache = ModelCache(store, Models(loaded=1), loads)
        models.publish(store, "wide", network().state_dict(), draft(arguments={"width": 3.5}))
        put(store, "other", task="walking")
        weights = store / "models" / "b" / "1"
        weights.write(models.WEIGHTS, weights.read(models.WEIGHTS)[:-4])
        torn = store / "models" / "c" / "1"
        torn.write(models.WEIGHTS, torn.read(models.WEIGHTS)[:-4] + b"\0\0\0\1")

        async def obstacle(name: str, loading: bool = False) -> str:
            return await cache.obstacle(await cache.card(name), loading)

        assert await obstacle("a") == "" and loads.names == []
        assert "refuses its arguments" in await obstacle("wide")
        assert "the task 'walking', which has no endpoint" in await obstacle("other")
        assert "bytes, the card says" in await obstacle("b")
        weights.delete(models.WEIGHTS)
        assert "the store cannot be read" in await obstacle("b")
        # what the card and the size do not say is known once the model was to be loaded
        assert await obstacle("c") == ""
        assert "sha256 differs" in await obstacle("c", loading=True) and "sha256 differs" in await obstacle("c")
        # what has been loaded is ready, and is not loaded again to say so
        assert await obstacle("a", loading=True) == "" and loads.names == ["a/1"]
        put(store, "d")
        await endpoint(cache, "d")
        assert await obstacle("a", loading=True) == "" and loads.names == ["a/1", "d/1"]

    asyncio.run(test())
