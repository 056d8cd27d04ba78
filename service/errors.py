"""Everything that can go wrong in a way that a user can understand, as one tree.

Each error is one sentence that names the field, the value and what is allowed, an optional hint that says
what to do, the exit code of the command line and the status of the HTTP endpoints.

    AssayError                          exit  HTTP
    ├── InputError                        2    400   what the user gave is wrong
    │   ├── SpecError                     2    400   a field of a spec
    │   │   └── FieldError                2    400   its value is not allowed: "X must be below N, the …; it is M"
    │   ├── UnknownNameError              2    404   a job, a problem, an architecture: suggests the nearest
    │   ├── TooLargeError                 2    413   a body, an image, a number of iterations over its limit
    │   ├── TooSlowError                  2    408   a body that does not come in time
    │   ├── UnsupportedMediaError         2    415   a body of a type that is not read
    │   ├── MethodNotAllowedError         2    405   a path that answers to other methods
    │   ├── UnsupportedError              2    501   a request that a protocol has and Assay does not carry out
    │   ├── ForbiddenError                2    403   a name or a page that the server does not answer to
    │   └── UnauthorisedError             2    401   no key, or one that is not known
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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SHOWN = 80  # characters of what somebody wrote that a sentence repeats


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


class FieldError(SpecError, ValueError):
    """A field of a spec, or of a request, has a value that is not allowed.

    FieldError("held_out", "be below 100, the number of training images", 120) says: held_out must be below 100, the
    number of training images; it is 120. A validator of parameters may raise it, being a ValueError as well: what is
    said then begins with the whole path of the field.
    """

    def __init__(self, field: str, requirement: str, value: object, hint: str | None = None) -> None:
        """field: its path as seen from the section that is checked, with dots. requirement: what follows "must"."""
        self.field, self.requirement, self.value = field, requirement, value
        super().__init__(f"{field} must {requirement}; it is {shown(value)}", hint)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.requirement, self.value, self.hint)


@contextmanager
def within(section: str) -> Iterator[None]:
    """A FieldError from inside names its field as seen from around the section."""
    try:
        yield
    except FieldError as error:
        raise FieldError(f"{section}.{error.field}", error.requirement, error.value, error.hint) from error


class UnknownNameError(InputError):
    http_status = 404


class TooLargeError(InputError):
    http_status = 413


class TooSlowError(InputError):
    http_status = 408


class UnsupportedMediaError(InputError):
    http_status = 415


class MethodNotAllowedError(InputError):
    """allowed: the methods to which the path answers."""

    http_status = 405

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(allowed)
        super().__init__(f"{method} is not supported at {brief(path)}", f"it answers to {', '.join(self.allowed)}")
        self.args = (method, path, self.allowed)


class UnsupportedError(InputError):
    http_status = 501


class ForbiddenError(InputError):
    http_status = 403


class UnauthorisedError(InputError):
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


def shown(value: object) -> str:
    """A value in a sentence: short, and as a user of YAML writes it."""
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case int():
            return brief(f"{value:,}") if abs(value) >= 10_000 else str(value)
        case float():
            return f"{value:g}"
        case dict():
            return "a group of fields"
        case str():
            return repr(brief(value))
        case list() | tuple():
            text = ", ".join(map(shown, value))
            return f"[{text}]" if len(text) <= SHOWN else f"a list of {len(value)}"
    return str(value)[:SHOWN]


def brief(text: str) -> str:
    """A text that somebody wrote, no longer than a sentence repeats."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def first_line(error: BaseException) -> str:
    """The first line of what an error of a library says, or its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the closest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name[:SHOWN], known, n=1)  # it takes memory by the length of the name
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """An error for a name that is not in a catalogue, with the nearest right one."""
    return UnknownNameError(f"unknown {kind} {shown(name)}", hint=nearest(name, known))
