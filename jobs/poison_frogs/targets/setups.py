"""The setups of the poisoning benchmark: which image is attacked, and which training images become poisons.

Setups are JSON here. Those that are published are pickles, which can run anything when they are loaded. `convert` reads
them by `plain_pickle`, which carries out nothing that they name, in a process of its own with little memory and time.
That process is this file, run as a program, which is why it needs numpy and not torch; it can also be run by hand:

    python -m jobs.poison_frogs.targets.setups < setups.pickle > setups.json

Source: Schwarzschild et al. 2021 ("Just how toxic is data poisoning?") and its code.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from jobs.common.data.plain_pickle import parse_pickle
from jobs.common.params import StudyParams
from service.errors import InputError, TooLargeError

LARGEST_FILE = 64 << 20  # bytes; the largest published one has less than 1 MB
MOST_SETUPS = 100_000
MOST_TUPLES = 1_000_000  # an array takes six; deep ones can end that process, not this one
MEMORY = 1 << 30  # bytes of the process that reads pickles
SECONDS = 10  # of processor time that it has
CONVERT = "python -m jobs.poison_frogs.targets.setups < setups.pickle > setups.json"
REFUSED = 3  # how it ends where it refuses


class Setup(StudyParams):
    """One trial: a target, and the training images that poisons are made of."""

    target_class: int = Field(ge=0, description="its label")
    target_index: int = Field(ge=0, description="its place in the test split")
    base_class: int = Field(ge=0, description="label of the bases, which the target shall be taken for")
    base_indices: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="their places in the training split; of one that is named twice two poisons are made"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.target_class == self.base_class:
            raise ValueError(f"base_class must be another class than that of the target; it is {self.base_class}")
        return self


_SETUPS = TypeAdapter(tuple[Setup, ...])


def read_setups(content: bytes, where: str = "the setups file") -> tuple[Setup, ...]:
    """Setups from JSON, a list of objects with the fields of `Setup`. InputError says what is wrong, and where."""
    if content[:1] == b"\x80":
        raise InputError(
            f"{where} is a pickle, which could run anything: it is not opened", hint=f"convert it: {CONVERT}"
        )
    _check_size(len(content), where)
    try:
        setups = _SETUPS.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(str(part) for part in ("setup", *first["loc"])) if first["loc"] else "the list of setups"
        raise InputError(f"{where}: {place}: {first['msg']}") from error
    if not 1 <= len(setups) <= MOST_SETUPS:
        raise InputError(f"{where} must hold from 1 to {MOST_SETUPS:,} setups; it holds {len(setups):,}")
    return setups


def convert(pickled: bytes, where: str = "the setups file") -> tuple[Setup, ...]:
    """Setups from a pickle of the benchmark. InputError if it is damaged, or asks for anything but plain values."""
    _check_size(len(pickled), where)
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "jobs.poison_frogs.targets.setups"]
    try:
        done = subprocess.run(command, input=pickled, capture_output=True, env=environment, timeout=6 * SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{where} takes more than {6 * SECONDS} seconds to be read") from error
    message = done.stderr.decode(errors="replace").strip()
    if done.returncode == REFUSED:
        raise InputError(f"{where} is not a pickle of setups: {message[-300:]}")
    if done.returncode < 0:  # killed: out of time, or of memory in a way that cannot be caught
        raise InputError(f"{where} takes more than {SECONDS} seconds or {MEMORY >> 20} MB to be read")
    if done.returncode:
        raise RuntimeError(f"the reader of pickles does not run: {message}")
    return read_setups(done.stdout, where)


def load(file: str) -> tuple[Setup, ...]:
    """The setups of a file, JSON or a pickle of the benchmark. InputError if it cannot be read, or holds no setups."""
    try:
        with open(file, "rb") as opened:
            size, content = os.fstat(opened.fileno()).st_size, opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"setups.file: {file!r} cannot be read: {error.strerror}") from error
    where = f"setups.file: {file!r}"
    _check_size(max(size, len(content)), where)
    return read_setups(content, where) if content.lstrip()[:1] in (b"[", b"{") else convert(content, where)


def _check_size(size: int, where: str) -> None:
    if size > LARGEST_FILE:
        raise TooLargeError(f"{where} must have at most {LARGEST_FILE:,} bytes; it has {size:,}")


# What follows runs in a process of its own.


def _plain(content: Any) -> list[dict[str, Any]]:
    """The setups that a pickle of the benchmark holds. ValueError if it holds anything else."""
    if type(content) is not list or len(content) > MOST_SETUPS:
        raise ValueError(f"it must hold a list of up to {MOST_SETUPS:,} setups; it holds a {type(content).__name__}")
    names = ("target class", "target index", "base class", "base indices")
    setups = []
    for number, setup in enumerate(content):
        if type(setup) is not dict or sorted(map(str, setup)) != sorted(names):
            raise ValueError(f"setup {number} must be a dictionary of {', '.join(names)}; it is something else")
        fields: dict[str, Any] = {name.replace(" ", "_"): _numbers(setup[name], f"setup {number}") for name in names}
        for name in ("target_class", "target_index", "base_class"):
            if len(fields[name]) != 1:
                raise ValueError(f"setup {number} holds {len(fields[name])} numbers as its {name.replace('_', ' ')}")
            fields[name] = fields[name][0]
        setups.append(fields)
    return setups


def _numbers(value: Any, where: str) -> list[int]:
    if isinstance(value, np.ndarray):
        return [int(number) for number in value.reshape(-1)]
    listed = [value] if type(value) is int else value
    if type(listed) not in (list, tuple):
        raise ValueError(f"{where} must hold whole numbers; it holds a {type(value).__name__}")
    return [_int(each.item() if isinstance(each, np.ndarray) and not each.shape else each, where) for each in listed]


def _int(value: Any, where: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{where} must hold a whole number; it holds a {type(value).__name__}")
    return value


def _mapped() -> int:
    """Bytes of address space that the libraries of this process take, which is much where there are many cores."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> NoReturn:
    """Read a pickle of setups from standard input, write JSON to standard output, or say why it is refused."""
    for limit, value in (
        (resource.RLIMIT_AS, _mapped() + MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    try:
        setups = json.dumps(_plain(parse_pickle(sys.stdin.buffer.read(), MOST_TUPLES)))
    except Exception as error:  # a hostile pickle can make the loader raise anything
        print(str(error) or type(error).__name__, file=sys.stderr)
        sys.exit(REFUSED)
    sys.stdout.write(setups)
    sys.stdout.flush()
    os._exit(0)  # nothing that was loaded gets to run as it is cleared away


if __name__ == "__main__":
    main()
