"""Who computes next, where there is more long work than a replica computes at once.

Each piece of work is computed in a thread of its own, a slice at a time. After a slice the place goes to the owner
whose work has had the least time: first among the keys, then among the models that a key asks for. An owner who comes
back after a pause begins with as much as the least of those present: nobody saves up turns.
Source: start-time fair queueing (Goyal, Vin & Cheng 1997).
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SLICE_SECONDS = 0.02

Owner = tuple[str, str]  # the name of the key and that of the model
Pause = Callable[[], None]


@dataclass(eq=False)
class _Waiting:
    owner: Owner
    turn: threading.Event = field(default_factory=threading.Event)


class Turns:
    """places: how many threads compute at the same time. Safe to use from any thread."""

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._free, self._clock = places, clock
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []  # in the order of their coming
        self._present: Counter[tuple[str, ...]] = Counter()  # threads of each key, and of each model of a key
        self._used: dict[tuple[str, ...], float] = {}  # seconds of those that are present

    @contextmanager
    def turn(self, owner: Owner) -> Iterator[Pause]:
        """Waits for a place and keeps it inside.

        What is given is to be called often: it may pass the place on, and then returns when there is one again.
        """
        self._enter(owner)
        began = self._clock()

        def pause() -> None:
            nonlocal began
            if self._clock() - began >= SLICE_SECONDS:
                self._pass_on(owner, self._clock() - began)
                began = self._clock()

        try:
            yield pause
        finally:
            self._leave(owner, self._clock() - began)

    def _enter(self, owner: Owner) -> None:
        with self._lock:
            for group in _groups(owner):
                if not self._present[group]:
                    peers = [self._used[other] for other in self._used if other[:-1] == group[:-1]]
                    self._used[group] = min(peers, default=0.0)
                self._present[group] += 1
            if self._free:
                self._free -= 1
                return
            waiting = self._queue(owner)
        waiting.turn.wait()

    def _pass_on(self, owner: Owner, seconds: float) -> None:
        with self._lock:
            self._charge(owner, seconds)
            if not self._waiting or not self._comes_before(self._next().owner, owner):
                return
            self._give_away()
            waiting = self._queue(owner)
        waiting.turn.wait()

    def _leave(self, owner: Owner, seconds: float) -> None:
        with self._lock:
            self._charge(owner, seconds)
            for group in _groups(owner):
                self._present[group] -= 1
                if not self._present[group]:
                    del self._present[group], self._used[group]
            if self._waiting:
                self._give_away()
            else:
                self._free += 1

    def _charge(self, owner: Owner, seconds: float) -> None:
        for group in _groups(owner):
            self._used[group] += seconds

    def _rank(self, owner: Owner) -> tuple[float, ...]:
        return tuple(self._used[group] for group in _groups(owner))

    def _comes_before(self, other: Owner, owner: Owner) -> bool:
        """Whether another is to have the place of an owner. The works of one owner come one after another."""
        return other != owner and self._rank(other) <= self._rank(owner)

    def _next(self) -> _Waiting:
        """The first to come of those who have had the least."""
        return min(self._waiting, key=lambda waiting: self._rank(waiting.owner))

    def _give_away(self) -> None:
        following = self._next()
        self._waiting.remove(following)
        following.turn.set()

    def _queue(self, owner: Owner) -> _Waiting:
        waiting = _Waiting(owner)
        self._waiting.append(waiting)
        return waiting


def _groups(owner: Owner) -> tuple[tuple[str, ...], ...]:
    """Among whom time is shared: the keys, and the models of a key."""
    key, model = owner
    return (key,), (key, model)
