"""Time is shared fairly between keys, then between the models of a key, a slice at a time."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from serving.deployments import turns
from serving.deployments.turns import Owner, Turns
from tests.processes import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(turns, "SLICE_SECONDS", 0.0)
    yield


class Bench:
    """Workers whose slices take a second each by a clock of their own. slices: of whom each was, in order."""

    def __init__(self, places: int = 1) -> None:
        self.now = 0.0
        self.turns = Turns(places, lambda: self.now)
        self.slices: list[str] = []
        self._threads: list[threading.Thread] = []
        self._started = threading.Event()

    def worker(self, name: str, owner: Owner, slices: int) -> None:
        """Comes after those that came before it."""

        def work() -> None:
            with self.turns.turn(owner) as pause:
                self._started.wait()
                for _ in range(slices):
                    self.slices.append(name)
                    self.now += 1
                    pause()

        before = self.turns._present.total()
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()
        while self.turns._present.total() == before:
            time.sleep(0.001)

    def run(self) -> str:
        self._started.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        return "".join(self.slices)


def test_two_of_equal_rank_alternate() -> None:
    bench = Bench()
    bench.worker("a", ("k", "m"), 3)
    bench.worker("b", ("l", "m"), 3)
    assert bench.run() == "ababab"


def test_short_work_of_another_comes_between_the_slices_of_long_work() -> None:
    bench = Bench()
    bench.worker("a", ("k", "m"), 100)
    bench.worker("b", ("l", "m"), 1)
    assert bench.run().index("b") == 1


def test_the_works_of_one_owner_come_one_after_another() -> None:
    bench = Bench()
    bench.worker("a", ("k", "m"), 3)
    bench.worker("b", ("k", "m"), 3)
    assert bench.run() == "aaabbb"


def test_many_of_one_key_get_no_more_than_one_of_another() -> None:
    bench = Bench()
    for _ in range(8):
        bench.worker("a", ("k", "m"), 10)
    bench.worker("b", ("l", "m"), 20)
    done = Counter(bench.run()[:40])
    assert abs(done["a"] - done["b"]) <= 1


def test_the_models_of_a_key_share_its_time() -> None:
    bench = Bench()
    for _ in range(4):
        bench.worker("a", ("k", "m"), 20)
    bench.worker("b", ("k", "n"), 20)
    bench.worker("c", ("l", "m"), 40)
    done = Counter(bench.run()[:80])
    assert abs(done["c"] - 40) <= 1 and abs(done["a"] - 20) <= 1 and abs(done["b"] - 20) <= 1


def test_whoever_comes_late_has_saved_nothing_up() -> None:
    """After 50 slices of one key another comes: from then on they alternate, and it does not get 50 in a row."""
    bench = Bench()

    def late() -> None:
        bench.worker("b", ("l", "m"), 10)

    with bench.turns.turn(("k", "m")) as pause:
        for _ in range(50):
            bench.now += 1
            pause()
        late()
        bench._started.set()
        for _ in range(10):
            bench.slices.append("a")
            bench.now += 1
            pause()
    done = Counter(bench.run()[:10])
    assert abs(done["a"] - done["b"]) <= 1


def test_no_more_compute_at_once_than_there_are_places() -> None:
    bench, lock, at_once, most = Turns(3), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal at_once, most
        with bench.turn(("k", "m")) as pause:
            for _ in range(20):
                with lock:
                    at_once += 1
                    most = max(most, at_once)
                time.sleep(0.0005)
                with lock:
                    at_once -= 1
                pause()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert most == 3 and bench._free == 3 and not bench._present and not bench._used and not bench._waiting


def test_an_error_gives_the_place_back() -> None:
    bench = Turns(1)
    with pytest.raises(ZeroDivisionError), bench.turn(("k", "m")):
        raise ZeroDivisionError
    with bench.turn(("k", "m")):
        pass
