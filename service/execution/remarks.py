"""What code without a handle says about how it computed: notes and warnings, on their way to the run.

A trial's code is heard by the trial's handle, a cell by `Remarks` that travel with its result and are kept with it.
"""

import warnings
from collections.abc import Sequence
from typing import Protocol


class Listener(Protocol):
    """Who keeps them."""

    def note(self, sentence: str) -> None: ...

    def warn(self, sentence: str) -> None: ...


class Remarks:
    """Those of a cell, each once."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes += (sentence,)

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings += (sentence,)


_listener: Listener | None = None  # of this process


class heard_by:
    """What is said inside is kept by this listener.

    Entered for every cell, for which a generator of contextlib takes three times as long.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __enter__(self) -> None:
        global _listener
        self._before, _listener = _listener, self._listener

    def __exit__(self, *_: object) -> None:
        global _listener
        _listener = self._before


def repeat(notes: Sequence[str], warnings: Sequence[str]) -> None:
    """Say to whoever listens here what was said in a cell."""
    for sentence in notes:
        note(sentence)
    for sentence in warnings:
        warn(sentence)


def note(sentence: str) -> None:
    """Say how something is computed, for the report; nothing where nobody listens."""
    if _listener is not None:
        _listener.note(sentence)


def warn(sentence: str) -> None:
    """Warn whoever reads the results; by Python's own warning where nobody listens."""
    if _listener is None:
        warnings.warn(sentence, stacklevel=2)
    else:
        _listener.warn(sentence)
