"""What code without a handle says about how it computed: notes and warnings, on their way to the run.

A trial's code is heard by the trial's handle, a cell by `Remarks` that travel with its result and are kept with it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Listener(Protocol):
    """Who keeps them."""

    def note(self, sentence: str) -> None: ...

    def warn(self, sentence: str) -> None: ...


@dataclass(frozen=True)
class Remarks:
    """Those of a cell, each once."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def repeat(self) -> None:
        """Say them to whoever listens here."""
        for sentence in self.notes:
            note(sentence)
        for sentence in self.warnings:
            warn(sentence)


_listener: Listener | None = None  # of this process


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """What is said inside is kept by this listener."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


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
