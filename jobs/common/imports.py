"""Names in a spec: a built-in one, or the import path of something of the user's own."""

import importlib
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from pydantic import AfterValidator

from service.errors import InputError, unknown

T = TypeVar("T", bound=Callable[..., object])


def resolve(name: str, builtins: Mapping[str, T | str], kind: str) -> T:
    """What a name stands for: one of `builtins`, or `mypackage.module:attribute`.

    builtins: by name; those that are import paths are imported when they are asked for. kind: what it is, for the
    sentence when there is no such thing. UnknownNameError names the nearest built-in; InputError says why an import
    path leads nowhere.
    """
    if ":" not in name:
        if name not in builtins:
            raise unknown(kind, name, builtins)
        if not isinstance(builtin := builtins[name], str):
            return builtin
        name = builtin
    path, _, attribute = name.partition(":")
    try:
        value = getattr(importlib.import_module(path), attribute)
    except (ImportError, ValueError, TypeError) as error:
        raise InputError(f"{kind} {name!r}: cannot import {path!r}: {error}") from error
    except AttributeError as error:
        raise InputError(f"{kind} {name!r}: {path!r} has no {attribute!r}") from error
    if not callable(value):
        raise InputError(f"{kind} {name!r} cannot be called: it is a {type(value).__name__}")
    return cast(T, value)


def name_of(builtins: Mapping[str, T | str], kind: str) -> AfterValidator:
    """For the type of a field: Annotated[str, name_of(…)] takes the names that `resolve` does."""

    def check(name: str) -> str:
        try:
            resolve(name, builtins, kind)
        except InputError as error:
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)
