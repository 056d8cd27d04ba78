"""Published files, written by the tests in their genuine formats; and files that lie about what they are."""

import gzip
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from jobs.common.data.debian import PACKAGES
from jobs.common.data.images import DataParams
from jobs.common.data.images.idx import UNPACKED, read_idx
from jobs.common.data.plain_pickle import read_pickle
from service.errors import InputError

# ---- CIFAR ----------------------------------------------------------------------------------------------------------


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes what cPickle of Python 2 wrote: strings are byte strings with a length before them."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.write(b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data)))
        self.write(data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def python2(content: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_cifar(
    folder: Path, files: list[str], labels: str, meta: str, names: str, classes: int
) -> dict[str, np.ndarray]:
    """Four random images a file. Returns their pixels, by file."""
    folder.mkdir(parents=True)
    stream, written = np.random.default_rng(0), {}
    for index, file in enumerate(files):
        written[file] = stream.integers(0, 256, (4, 3 * 32 * 32), dtype=np.uint8)
        batch = {labels: [index, 1, 2, classes - 1], "data": written[file], "batch_label": "x" * 300}
        (folder / file).write_bytes(python2(batch))
    (folder / meta).write_bytes(python2({names: [f"class {index}" for index in range(classes)], "num_vis": 3072}))
    return written


TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.mark.parametrize("below", ["cifar-10-batches-py", "."])
def test_cifar10(tmp_path: Path, below: str) -> None:
    folder = tmp_path / "root" / below
    written = write_cifar(folder, [*TRAIN, "test_batch"], "labels", "batches.meta", "label_names", 10)
    assert pickle.loads((folder / "test_batch").read_bytes(), encoding="bytes")[b"labels"] == [5, 1, 2, 9]
    params = DataParams(name="cifar10", root=str(tmp_path / "root"))
    train, test = params.load("train"), params.load("test")
    assert (len(train), len(test), train.shape) == (20, 4, (3, 32, 32))
    assert train.classes == tuple(f"class {index}" for index in range(10))
    assert train.labels.tolist()[:8] == [0, 1, 2, 9, 1, 1, 2, 9]
    rows = np.concatenate([written[file] for file in TRAIN])
    expected = torch.from_numpy(rows.reshape(20, 3, 32, 32)).float() / 255
    assert torch.equal(train.images(torch.arange(20)), expected)


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    write_cifar(folder, ["train", "test"], "fine_labels", "meta", "fine_label_names", 100)
    images = DataParams(name="cifar100", root=str(tmp_path)).load("test")
    assert len(images.classes) == 100 and images.labels.tolist() == [1, 1, 2, 99]


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, int]]:
        return os.mkdir, (self.file, 0o700)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_malicious_batch_is_refused_without_being_run(tmp_path: Path, protocol: int) -> None:
    write_cifar(tmp_path / "root", [*TRAIN, "test_batch"], "labels", "batches.meta", "label_names", 10)
    evil = pickle.dumps({"labels": [0], "data": Touch(tmp_path / "touched")}, protocol)
    (tmp_path / "root/test_batch").write_bytes(evil)
    with pytest.raises(InputError, match="test_batch' is not a pickle of plain data"):
        DataParams(name="cifar10", root=str(tmp_path / "root")).load("test")
    assert not (tmp_path / "touched").exists()
    pickle.loads(evil)
    assert (tmp_path / "touched").exists(), "the pickle is a real attack"


PUT = b"r" + struct.pack("<I", 1 << 31)  # LONG_BINPUT: a memo of that many entries


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "pickle exhausted"),
        (b"\x80\x02}", "pickle exhausted"),
        (b"\x80\x02}" + PUT + b".", "puts entry 2147483648 into a memo of 0"),
        (b"\x80\x04" + b")" + b"\x85" * 100_000 + b".", "at most 100 tuples; it has 100,001"),
        (b"(S'x'\nios\nsystem\n.", "instruction INST"),
        (b"\x80\x02cos\nsystem\n.", "asks for os.system"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n.", "it holds a type"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.data\x93.", "asks for numpy.ndarray.data"),
        (pickle.dumps(1.5, 2), "instruction BINFLOAT"),
        (python2(np.array([{}], dtype=object)), "holds an array of 'O8'"),
        (pickle.dumps(np.zeros(3), 2), "holds an array of 'f8'"),
        (python2(np.asfortranarray(np.zeros((2, 3), np.uint8))), "not one of rows"),
        (python2(np.zeros((2, 3), np.uint8)).replace(b"K\x02K\x03\x86", b"K\x7fK\x03\x86"), r"\(127, 3\) has 6 bytes"),
    ],
)
def test_pickles_of_more_than_plain_data(tmp_path: Path, data: bytes, sentence: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(InputError, match=f"file' is not a pickle of plain data: .*{sentence}"):
        read_pickle(tmp_path / "file")


def test_lists_of_one_list_twice_do_not_double(tmp_path: Path) -> None:
    lists: list[Any] = [1]
    for _ in range(100):
        lists = [lists, lists]
    (tmp_path / "file").write_bytes(pickle.dumps({"labels": lists}, 2))
    content = read_pickle(tmp_path / "file")["labels"]
    assert content[0] is content[1] and content[0][0] is content[1][1]


def test_plain_pickles_of_any_protocol(tmp_path: Path) -> None:
    content = {"names": ["a", "b"], "counts": [1, 300, 70_000], "nested": {"x": None, "y": True}}
    for protocol in range(6):
        (tmp_path / "file").write_bytes(pickle.dumps(content, protocol))
        assert read_pickle(tmp_path / "file") == content


@pytest.mark.parametrize("kind", ["u1", "<i8", ">i4", "<u2"])
def test_arrays_of_whole_numbers_of_any_protocol(tmp_path: Path, kind: str) -> None:
    """Also those of numpy 1, within lists, and numbers of their own."""
    array = np.array([[4, 9, 2], [1, 0, 7]], kind)
    for protocol in range(6):
        new = pickle.dumps({"a": array, "b": [array[0, 0], 3]}, protocol)
        old = new.replace(b"numpy._core.", b"numpy.core.") if protocol < 4 else new  # later ones tell lengths
        for data in (new, old):
            (tmp_path / "file").write_bytes(data)
            content = read_pickle(tmp_path / "file")
            np.testing.assert_array_equal(content["a"], array)
            assert content["a"].dtype == array.dtype and content["b"] == [4, 3]


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ([1], "it holds a list"),
        ({"labels": [0]}, "it has no 'data'"),
        ({"labels": [0], "data": "abc"}, "'data' are not one row of 3072 bytes for each label"),
        ({"labels": [0], "data": np.zeros((2, 3072), np.uint8)}, "'data' are not one row of 3072 bytes"),
        ({"labels": ["cat"], "data": np.zeros((1, 3072), np.uint8)}, "'labels' are not small whole numbers"),
        ({"labels": [10], "data": np.zeros((1, 3072), np.uint8)}, "they are from 10 to 10"),
        ({"labels": 3, "data": np.zeros((1, 3072), np.uint8)}, "a list is a int"),
    ],
)
def test_batches_that_are_not_cifar(tmp_path: Path, batch: Any, sentence: str) -> None:
    write_cifar(tmp_path / "root", ["test_batch"], "labels", "batches.meta", "label_names", 10)
    (tmp_path / "root/test_batch").write_bytes(python2(batch))
    with pytest.raises(InputError, match=sentence):
        DataParams(name="cifar10", root=str(tmp_path / "root")).load("test")


def test_a_batch_that_is_missing_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path / "root", TRAIN[:3], "labels", "batches.meta", "label_names", 10)
    with pytest.raises(InputError, match="no file .*data_batch_4"):
        DataParams(name="cifar10", root=str(tmp_path / "root")).load("train")


# ---- idx ------------------------------------------------------------------------------------------------------------


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("mnist", "MNIST/raw"),
        ("mnist", "."),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("fashion_mnist", "usr/share/datasets/fashion-mnist"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_in_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, below: str, packed: bool
) -> None:
    stream, folder = np.random.default_rng(0), tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = stream.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8)
    for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
        data = idx(values)
        file = folder / f"t10k-{kind}-ubyte{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(data) if packed else data)
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path))
    images = DataParams(name=name).load("test")
    assert images.shape == (1, 28, 28) and images.labels.tolist() == list(range(6)) and len(images.classes) == 10
    assert torch.equal(images.images(torch.tensor([4, 1]))[:, 0], torch.from_numpy(pixels[[4, 1]]).float() / 255)
    with pytest.raises(InputError, match="put train-images-idx3-ubyte and train-labels-idx1-ubyte there"):
        DataParams(name=name).load("train")


def test_make_data_puts_fashion_mnist_where_it_is_looked_for() -> None:
    assert UNPACKED in {package.holds for package in PACKAGES}


GOOD = idx(np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x", b"", "does not begin as unsigned bytes in 3 dimensions"),
        ("x", idx(np.zeros(5, np.uint8)), "does not begin as unsigned bytes in 3 dimensions"),
        ("x", GOOD[:-1], "says that it holds 24 bytes, and holds fewer"),
        ("x", GOOD + b"x", "says that it holds 24 bytes, and holds more"),
        ("x", struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), "at most 1,073,741,824 are allowed"),
        ("x.gz", GOOD, "Not a gzipped file"),
        # no time of day in what names a test: two workers must collect the same names
        ("x.gz", gzip.compress(GOOD, mtime=0)[:-12], "ended before"),
        ("x.gz", gzip.compress(GOOD + bytes(50_000_000), mtime=0), "holds more"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}' is not a file of idx data: .*{sentence}"):
        read_idx(tmp_path / name, 3)


# ---- SVHN -----------------------------------------------------------------------------------------------------------


def test_svhn(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array([[1], [10], [3], [9], [10]], np.uint8)})
    images = DataParams(name="svhn", root=str(tmp_path)).load("test")
    assert images.labels.tolist() == [1, 0, 3, 9, 0]
    for index, image in enumerate((255 * images.images(torch.arange(5))).round()):
        assert np.array_equal(image.numpy().transpose(1, 2, 0), pixels[..., index])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is not a MATLAB file of SVHN"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "is not a MATLAB file of SVHN"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.array([1, 2])}, "X is float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([1, 2, 3])}, "y has 3 labels"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([0, 2])}, "not digits from 1 to 10"),
    ],
)
def test_damaged_svhn(tmp_path: Path, content: dict[str, Any] | None, sentence: str) -> None:
    file = tmp_path / "train_32x32.mat"
    if content is None:
        file.write_bytes(b"<html>not found</html>" * 20)
    else:
        savemat(file, content)
    with pytest.raises(InputError, match=sentence):
        DataParams(name="svhn", root=str(tmp_path)).load("train")
