"""Everything that can go wrong in a way that a user can understand, as one tree.

Each error is one sentence that names the field, the value and what is allowed, an optional hint that says
what to do, the exit code of the command line and the status of the HTTP endpoints.

    AssayError                          exit  HTTP
    ├── InputError                        2    400   what the user gave is wrong
    │   ├── SpecError                     2    400   a field of a spec
    │   ├── UnknownNameError              2    404   a job, a problem, an architecture: suggests the nearest
    │   ├── TooLargeError                 2    413   a body, an image, a number of iterations over its limit
    │   └── StrangerError                 2    401   no key, or one that is not known
    ├── StoreError                        2    503   the store cannot be read or written, or is full
    │   ├── RunNotFoundError              2    404
    │   └── RunLockedError                2    409   another driver holds the run
    ├── ModelError                        2    500   the weights or the card of a model are unusable
    │   └── ModelNotFoundError            2    404
    ├── ClusterError                      2    503   Ray is out of reach or cannot give what is asked
    ├── BusyError                         2    503   no room in the queue now
    │   └── OverLimitError                2    429   a key has used up its requests or its attacks for now
    ├── RunFailedError                    1    500   the run ended without a result
    │   └── RunPartialError               3    500   some trials or cells failed; the rest has its results
    └── RunCancelledError               130    499   stopped on request; `assay resume` goes on from here
"""

import difflib
from collections.abc import Iterable


class AssayError(Exception):
    """The root of the tree. `hint` says what the user can do about it."""

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)  # both in args, so that the error survives pickling between processes
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(AssayError):
    exit_code = 2
    http_status = 400


class SpecError(InputError):
    pass


class UnknownNameError(InputError):
    http_status = 404


class TooLargeError(InputError):
    http_status = 413


class StrangerError(InputError):
    http_status = 401


class StoreError(AssayError):
    exit_code = 2
    http_status = 503


class RunNotFoundError(StoreError):
    http_status = 404


class RunLockedError(StoreError):
    http_status = 409


class ModelError(AssayError):
    exit_code = 2


class ModelNotFoundError(ModelError):
    http_status = 404


class ClusterError(AssayError):
    exit_code = 2
    http_status = 503


class BusyError(AssayError):
    exit_code = 2
    http_status = 503


class OverLimitError(BusyError):
    """seconds: after which it would not be raised."""

    http_status = 429

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.args = (message, seconds)
        self.seconds = seconds


class RunFailedError(AssayError):
    pass


class RunPartialError(RunFailedError):
    exit_code = 3


class RunCancelledError(AssayError):
    exit_code = 130
    http_status = 499


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the closest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """An error for a name that is not in a catalogue, with the nearest right one."""
    return UnknownNameError(f"unknown {kind} {name!r}", hint=nearest(name, known))
