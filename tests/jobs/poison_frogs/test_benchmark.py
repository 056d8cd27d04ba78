"""The protocol of the poisoning benchmark, and pickles of setups, some of them hostile."""

import collections
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.poison_frogs import benchmark
from jobs.poison_frogs.benchmark import (
    TRACKS,
    Setup,
    check_clean_label,
    check_setup,
    convert,
    fine_tuning_set,
    levels,
    read_setups,
    track,
    write_setups,
)
from service.errors import InputError, TooLargeError, UnknownNameError

SETUP = Setup(target_class=3, target_index=17, base_class=1, base_indices=(4, 9, 2))
PUBLISHED = {"target class": 3, "target index": 17, "base class": 1, "base indices": [4, 9, 2]}


def test_json_round_trip() -> None:
    assert read_setups(write_setups([SETUP, SETUP])) == (SETUP, SETUP)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x80\x04N.", "is a pickle, which could run anything"),
        (b"[]", "holds 0 setups"),
        (b"{}", "the list of setups: Input should be a valid array"),
        (b'[{"target_class": 1}]', "setup 0 target_index: Field required"),
        (write_setups([SETUP]).replace(b": 17", b": -1"), "setup 0 target_index: .*greater than or equal to 0"),
        (write_setups([SETUP]).replace(b": 17", b': "17"'), "setup 0 target_index: .*valid integer"),
        (write_setups([SETUP]).replace(b": 3", b": 1"), "setup 0: .*target and bases are of the same class, 1"),
        (write_setups([SETUP]).replace(b"9", b"4"), "setup 0: .*base indices must be 0 or more, each but once"),
        (write_setups([SETUP]).replace(b"9", b"-9"), "setup 0: .*base indices must be 0 or more, each but once"),
    ],
)
def test_json_that_is_wrong(content: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_setups(content)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_the_benchmark(protocol: int) -> None:
    """Lists, tuples, arrays and numbers of numpy, of any width and byte order, whichever protocol wrote them."""
    indices: list[Any] = [
        [4, 9, 2],
        (4, 9, 2),
        [np.int64(4), 9, np.uint8(2)],
        *(np.array([4, 9, 2], kind) for kind in ("<i8", ">i4", "u1", "<u2")),
    ]
    setups = [{**PUBLISHED, "base indices": each, "target index": np.int64(17)} for each in indices]
    assert convert(pickle.dumps(setups, protocol)) == (SETUP,) * len(indices)


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
        with pytest.raises(InputError, match=f"it asks for {name}, which setups never do"):
            convert(pickle.dumps([{**PUBLISHED, "base indices": call}]))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([collections.OrderedDict(PUBLISHED)], "it asks for collections.OrderedDict"),
        ([{**PUBLISHED, "base indices": np.array([0.5])}], "it holds an array of 'f8'"),
        ([{**PUBLISHED, "base indices": np.array(["a"], object)}], "it holds an array of 'O8'"),
        ([{**PUBLISHED, "base indices": [0.5]}], "setup 0 holds a float where a whole number is wanted"),
        ([{**PUBLISHED, "base indices": "abc"}], "setup 0 holds a str where whole numbers are wanted"),
        ([{**PUBLISHED, "target class": True}], "setup 0 holds a bool"),
        ([{**PUBLISHED, "target class": [1, 2]}], "setup 0 holds 2 numbers as its target class"),
        ([{"target class": 1}], "setup 0 is no dictionary of target class, target index"),
        ([PUBLISHED, 7], "setup 1 is no dictionary"),
        ({"a": 1}, "it holds a dict, a list of up to"),
        ([{**PUBLISHED, "base class": 3}], "target and bases are of the same class"),
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
    with pytest.raises(TooLargeError, match="has 67,108,865 bytes"):
        convert(b"\0" * ((64 << 20) + 1))


def test_a_reader_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the limit of its processor time, or because it does not end."""
    done = subprocess.CompletedProcess([], -9, b"", b"")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(InputError, match="takes more than 10 seconds or 1024 MB"):
        convert(b"")

    def never(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("read", 60)

    monkeypatch.setattr(benchmark.subprocess, "run", never)
    with pytest.raises(InputError, match="takes more than 60 seconds"):
        convert(b"")


def test_converting_by_hand(tmp_path: Path) -> None:
    """The command of the hint, from file to file."""
    (tmp_path / "setups.pickle").write_bytes(pickle.dumps([PUBLISHED]))
    with pytest.raises(InputError, match="convert it: python -m jobs.poison_frogs.benchmark"):
        read_setups((tmp_path / "setups.pickle").read_bytes())
    command = benchmark.CONVERT.replace("python", sys.executable, 1).replace("setups.", f"{tmp_path}/setups.")
    subprocess.run(command, shell=True, check=True)
    assert read_setups((tmp_path / "setups.json").read_bytes()) == (SETUP,)


def test_the_reader_is_kept_small() -> None:
    """It loads neither torch nor the service's machinery: it starts fast, and little is at hand in it."""
    code = "import sys, jobs.poison_frogs.benchmark; print(*{'torch', 'ray', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_poisons_replace_their_bases() -> None:
    """By hand: four a class, two bases of class 1, which is two short and skips them."""
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1])
    setup = Setup(target_class=0, target_index=0, base_class=1, base_indices=(9, 3))
    found = fine_tuning_set(labels, setup, size=8, classes=2)
    assert found.tolist() == [0, 2, 5, 7, 1, 4]
    assert len(found) + len(setup.base_indices) == 8


def test_fine_tuning_set_of_a_track() -> None:
    """2,500 of CIFAR-10's training split with 25 poisons: 250 of each class, against a loop over all images."""
    labels = np.random.default_rng(0).integers(0, 10, 50_000)
    bases = tuple(np.random.default_rng(1).permutation(np.flatnonzero(labels == 6)[:400])[:25].tolist())
    setup = Setup(target_class=2, target_index=0, base_class=6, base_indices=bases)
    expected: dict[int, list[int]] = {label: [] for label in range(10)}
    for row, label in enumerate(labels.tolist()):
        if row not in bases and len(expected[label]) < (225 if label == 6 else 250):
            expected[label].append(row)
    found = fine_tuning_set(labels, setup, track("cifar10_transfer").size, track("cifar10_transfer").classes)
    assert found.tolist() == [row for label in range(10) for row in expected[label]] and len(found) == 2475


def test_too_few_images() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    setup = Setup(target_class=0, target_index=0, base_class=1, base_indices=tuple(range(10, 16)))
    with pytest.raises(InputError, match="class 0 has 10 images that are no bases, and 11 are wanted"):
        fine_tuning_set(labels, setup, 22, 2)
    with pytest.raises(InputError, match="6 poisons do not fit into 5 images of a class"):
        fine_tuning_set(labels, setup, 10, 2)
    assert len(fine_tuning_set(labels, setup, 20, 2)) == 14, "as many as there are"
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10_transfer'"):
        track("cifar10_transfr")
    assert {name: (each.poisons, each.size) for name, each in TRACKS.items()} == {
        "cifar10_transfer": (25, 2_500),
        "cifar10_from_scratch": (500, 50_000),
        "tinyimagenet_transfer": (250, 50_000),
        "tinyimagenet_from_scratch": (250, 100_000),
    }


def test_setups_against_data() -> None:
    train, test = np.array([0, 0, 1, 0, 1, 0, 0, 0, 0, 1]), np.full(18, 3)
    check_setup(SETUP, train, test)
    with pytest.raises(InputError, match="test image 17 and training images up to 9, the data have 17 and 10"):
        check_setup(SETUP, train, test[:17])
    with pytest.raises(InputError, match="the data have 18 and 9"):
        check_setup(SETUP, train[:9], test)
    with pytest.raises(InputError, match="target 17 is to be of class 3, its label is 2"):
        check_setup(SETUP, train, test - 1)
    with pytest.raises(InputError, match="base 4 is to be of class 1, its label is 0: that is no clean label"):
        check_setup(SETUP, np.where(np.arange(10) == 4, 0, train), test)


def test_clean_label() -> None:
    """8 levels and the one that truncation costs; the labels and the number of the bases."""
    bases = np.random.default_rng(0).integers(10, 240, (3, 4, 4, 3)).astype(np.uint8)
    labels = np.array([1, 1, 1])
    poisons = bases.copy()
    poisons[1, 2, 2, 1] += 9
    poisons[2, 0, 0, 0] -= 8
    assert levels(poisons, bases).tolist() == [0, 9, 8]
    check_clean_label(poisons, bases, labels, SETUP)
    with pytest.raises(InputError, match="poison 1 is 9/255 off its base, up to 8/255 is allowed"):
        check_clean_label(poisons, bases, labels, SETUP, most=8)
    poisons[2, 0, 0, 0] = bases[2, 0, 0, 0] - 10
    with pytest.raises(InputError, match="poison 2 is 10/255 off its base, up to 9/255 is allowed"):
        check_clean_label(poisons, bases, labels, SETUP)
    with pytest.raises(InputError, match="poison 1 has label 0, its base 1: that is no clean label"):
        check_clean_label(bases, bases, np.array([1, 0, 1]), SETUP)
    with pytest.raises(InputError, match="2 poisons, 3 bases and 3 labels do not fit the 3 bases"):
        check_clean_label(bases[:2], bases, labels, SETUP)
    with pytest.raises(InputError, match=r"must be uint8 images of one shape, not float64"):
        levels(bases / 255, bases)


def test_truncation_costs_a_level() -> None:
    """Why nine are taken: 8/255 less, in float32, is cut down to 9 levels less at some shades."""
    shades = np.arange(8, 256, dtype=np.uint8)
    lowered = shades.astype(np.float32) / np.float32(255) - np.float32(8 / 255)
    truncated = (lowered.clip(0, 1) * np.float32(255)).astype(np.uint8)
    assert levels(truncated[:, None], shades[:, None]).max() == 9
