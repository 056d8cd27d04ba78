"""Setups of the poisoning benchmark: as JSON, and as pickles, some of them hostile."""

import collections
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.poison_frogs.targets import setups
from jobs.poison_frogs.targets.setups import Setup, convert, read_setups
from service.errors import InputError, TooLargeError

SETUP = Setup(target_class=3, target_index=17, base_class=1, base_indices=(4, 9, 2))


def as_json(*setups: Setup) -> bytes:
    return json.dumps([setup.model_dump() for setup in setups]).encode()


PUBLISHED = {"target class": 3, "target index": 17, "base class": 1, "base indices": [4, 9, 2]}


def test_json_round_trip() -> None:
    assert read_setups(as_json(SETUP, SETUP)) == (SETUP, SETUP)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x80\x04N.", "is a pickle, which could run anything"),
        (b"[]", "setups; it holds 0"),
        (b"{}", "the list of setups: Input should be a valid array"),
        (b'[{"target_class": 1}]', "setup 0 target_index: Field required"),
        (as_json(SETUP).replace(b": 17", b": -1"), "setup 0 target_index: .*greater than or equal to 0"),
        (as_json(SETUP).replace(b": 17", b': "17"'), "setup 0 target_index: .*valid integer"),
        (
            as_json(SETUP).replace(b": 3", b": 1"),
            "setup 0: .*base_class must be another class .*; it is 1",
        ),
        (as_json(SETUP).replace(b"9", b"-9"), "setup 0 base_indices 1: .*greater than or equal to 0"),
    ],
)
def test_json_that_is_wrong(content: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_setups(content)


def test_a_base_may_be_named_twice() -> None:
    """As in two of the published setups of cifar10_transfer_learning."""
    (setup,) = convert(pickle.dumps([{**PUBLISHED, "base indices": [4, 9, 4]}]))
    assert setup.base_indices == (4, 9, 4)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_the_benchmark(protocol: int) -> None:
    """Lists, tuples, arrays and numbers of numpy, of any width and byte order, whichever protocol wrote them."""
    indices: list[Any] = [
        [4, 9, 2],
        (4, 9, 2),
        [np.int64(4), 9, np.uint8(2)],
        *(np.array([4, 9, 2], kind) for kind in ("<i8", ">i4", "u1", "<u2")),
    ]
    published = [{**PUBLISHED, "base indices": each, "target index": np.int64(17)} for each in indices]
    assert convert(pickle.dumps(published, protocol)) == (SETUP,) * len(indices)


def test_pickles_of_older_numpy() -> None:
    """The published files name the modules of numpy 1."""
    new = pickle.dumps([{**PUBLISHED, "base indices": np.array([4, 9, 2])}], 2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != new and convert(old) == (SETUP,)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_hostile_pickles_do_nothing(tmp_path: Path) -> None:
    """What they ask for is named and not run, neither here nor in the process that reads them."""
    trace = tmp_path / "trace"
    harm = f"__import__('os').mkdir({str(trace)!r})"
    pickle.loads(pickle.dumps([Call(eval, harm)]))
    assert trace.exists(), "as it would be elsewhere"
    trace.rmdir()
    for call, name in (
        (Call(os.system, f"touch {trace}"), "posix.system"),
        (Call(eval, harm), "builtins.eval"),
        (Call(subprocess.Popen, ["touch", str(trace)]), "subprocess.Popen"),
        (Call(getattr, 1, "real"), "builtins.getattr"),
    ):
        with pytest.raises(InputError, match=f"it asks for {name}, which plain data never do"):
            convert(pickle.dumps([{**PUBLISHED, "base indices": call}]))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([collections.OrderedDict(PUBLISHED)], "it asks for collections.OrderedDict"),
        ([{**PUBLISHED, "base indices": np.array([0.5])}], "it holds an array of 'f8'"),
        ([{**PUBLISHED, "base indices": np.array(["a"], object)}], "it holds an array of 'O8'"),
        ([{**PUBLISHED, "base indices": [0.5]}], "the instruction BINFLOAT"),
        ([{**PUBLISHED, "base indices": "abc"}], "setup 0 must hold whole numbers; it holds a str"),
        ([{**PUBLISHED, "target class": True}], "setup 0 must hold whole numbers; it holds a bool"),
        ([{**PUBLISHED, "target class": [1, 2]}], "setup 0 holds 2 numbers as its target class"),
        ([{"target class": 1}], "setup 0 must be a dictionary of target class, target index"),
        ([PUBLISHED, 7], "setup 1 must be a dictionary"),
        ({"a": 1}, "it must hold a list of up to 100,000 setups; it holds a dict"),
        ([{**PUBLISHED, "base class": 3}], "base_class must be another class"),
    ],
)
def test_pickles_of_something_else(content: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        convert(pickle.dumps(content))


def test_pickles_that_take_too_much() -> None:
    """A memo of a billion entries, text that ends early, and rubbish: a sentence, and soon."""
    began = time.monotonic()
    for content in (b"\x80\x04Nr\xff\xff\xff\x7f.", b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little"), b"", b"rubbish"):
        with pytest.raises(InputError, match="is not a pickle of setups: "):
            convert(content)
    assert time.monotonic() - began < 20
    with pytest.raises(TooLargeError, match="it has 67,108,865"):
        convert(b"\0" * ((64 << 20) + 1))


def test_a_file_that_is_too_large_is_refused_with_its_size(tmp_path: Path) -> None:
    with (tmp_path / "setups.json").open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(TooLargeError, match="must have at most 67,108,864 bytes; it has 100,000,000"):
        setups.load(str(tmp_path / "setups.json"))


def test_a_reader_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the limit of its processor time, or because it does not end."""
    done = subprocess.CompletedProcess([], -9, b"", b"")
    monkeypatch.setattr(setups.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(InputError, match="takes more than 10 seconds or 1024 MB"):
        convert(b"")

    def never(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("read", 60)

    monkeypatch.setattr(setups.subprocess, "run", never)
    with pytest.raises(InputError, match="takes more than 60 seconds"):
        convert(b"")


def test_converting_by_hand(tmp_path: Path) -> None:
    """The command of the hint, from file to file."""
    (tmp_path / "setups.pickle").write_bytes(pickle.dumps([PUBLISHED]))
    with pytest.raises(InputError, match="convert it: python -m jobs.poison_frogs.targets.setups"):
        read_setups((tmp_path / "setups.pickle").read_bytes())
    command = setups.CONVERT.replace("python", sys.executable, 1).replace("setups.", f"{tmp_path}/setups.")
    subprocess.run(command, shell=True, check=True)
    assert read_setups((tmp_path / "setups.json").read_bytes()) == (SETUP,)


def test_the_reader_is_kept_small() -> None:
    """It loads neither torch nor the service's machinery: it starts fast, and little is at hand in it."""
    code = "import sys, jobs.poison_frogs.targets.setups; print(*{'torch', 'ray', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
