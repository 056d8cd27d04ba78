"""Poisons as files: nothing lost, and nothing read that is not what it should be."""

import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.poison_frogs.poisons.export import PoisonSet, decode, encode, read, to_8_bits, write
from service.errors import InputError, TooLargeError


def poison_set(channels: int = 3, count: int = 4, height: int = 5, width: int = 7) -> PoisonSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count + 1, channels, height, width), dtype=torch.uint8, generator=generator)
    labels, bases = (6,) * count, tuple(range(40, 40 + count))
    return PoisonSet(pixels[:count], labels, bases, pixels[count], target_index=9, target_label=2, data="cifar10")


def same(one: PoisonSet, other: PoisonSet) -> bool:
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.target, other.target)
        and replace(one, images=one.target) == replace(other, images=one.target, target=one.target)
    )


def write_folder(poisons: PoisonSet, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in encode(poisons).items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (32, 32)])
def test_round_trip(tmp_path: Path, channels: int, size: tuple[int, int]) -> None:
    """In memory and through a folder; any PNG reader sees the same pixels."""
    poisons = poison_set(channels, 4, *size)
    files = encode(poisons)
    assert same(decode(files["poisons.json"], lambda name: files[name]), poisons)
    write_folder(poisons, tmp_path / "new" / "poisons")
    assert same(read(tmp_path / "new" / "poisons"), poisons)
    assert sorted(os.listdir(tmp_path / "new")) == ["poisons"]
    seen = np.asarray(Image.open(tmp_path / "new" / "poisons" / "poison_00002.png")).reshape(*size, channels)
    assert np.array_equal(seen, poisons.images[2].permute(1, 2, 0).numpy())


def test_the_index() -> None:
    index = json.loads(encode(poison_set())["poisons.json"])
    assert {name: index[name] for name in ("scale", "channels", "height", "width", "data", "target_index")} == {
        "scale": 255,
        "channels": 3,
        "height": 5,
        "width": 7,
        "data": "cifar10",
        "target_index": 9,
    }
    digest = hashlib.sha256(encode(poison_set())["poison_00001.png"]).hexdigest()
    assert index["poisons"][1] == {"file": "poison_00001.png", "sha256": digest, "label": 6, "base": 41}
    assert index["target"]["label"] == 2


def test_rounding_to_8_bits() -> None:
    """To the nearest level, halves to the even one; what has been rounded stays."""
    for kind in (torch.float32, torch.float64):
        images = torch.tensor([0.0, 0.4, 0.5, 0.6, 1.5, 2.5, 254.6, 255.0], dtype=kind) / 255
        assert to_8_bits(images).tolist() == [0, 0, 0, 1, 2, 2, 255, 255]
    shades = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_8_bits(shades.float() / 255), shades)
    for wrong in (shades, shades.float(), torch.tensor([-0.1]), torch.tensor([float("nan")])):
        with pytest.raises(InputError, match=r"images must be floats in \[0, 1\]; they are"):
            to_8_bits(wrong)


def test_an_epsilon_holds_after_the_round_trip() -> None:
    """A change of 8/255 is one of 8 levels, whatever float makes of it."""
    bases = torch.arange(256, dtype=torch.uint8)
    for sign in (1, -1):
        poisons = (bases.float() / 255 + sign * 8 / 255).clamp(0, 1)
        assert int((to_8_bits(poisons).int() - bases.int()).abs().max()) == 8


def test_sets_that_are_none() -> None:
    good = poison_set()
    for changes, sentence in (
        ({"images": good.images.float()}, "poisons must be uint8"),
        ({"images": good.images[:0], "labels": (), "bases": ()}, "poisons must be uint8"),
        ({"target": good.target[:1]}, "grey or RGB images of one size"),
        ({"images": good.images[:, :2], "target": good.target[:2]}, "grey or RGB images of one size"),
        ({"labels": (1, 2)}, "labels and bases must be 4 each, one for each poison; they are 2 and 4"),
        ({"labels": (-1, 2, 3, 4)}, r"label: Input should be greater than or equal to 0"),
        ({"target_index": -1}, "these poisons: target_index"),
    ):
        with pytest.raises(InputError, match=sentence):
            encode(replace(good, **changes))  # type: ignore[arg-type]


def png(pixels: np.ndarray, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def sixteen_bits() -> bytes:
    """A 16-bit RGB PNG, which Pillow reads as one of 8 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(7 * 6)) * 5
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RGB = np.zeros((5, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (png(RGB, format="JPEG"), "must be a whole PNG"),
        (b"", "must be a whole PNG"),
        (png(RGB)[:20], "must be a whole PNG"),
        (png(RGB, "RGBA"), "must be 8-bit RGB; it is 8-bit RGB with alpha"),
        (png(RGB, "L"), "must be 8-bit RGB; it is 8-bit grey"),
        (png(RGB, "LA"), "must be 8-bit RGB; it is 8-bit grey with alpha"),
        (png(RGB, "P"), r"must be 8-bit RGB; it is \d-bit palette"),
        (png(RGB, "1"), "must be 8-bit RGB; it is 1-bit grey"),
        (png(np.zeros((5, 7), np.uint16)), "must be 8-bit RGB; it is 16-bit grey"),
        (sixteen_bits(), "must be 8-bit RGB; it is 16-bit RGB"),
        (png(RGB, transparency=(0, 0, 0)), "it has transparent pixels"),
        (png(np.zeros((7, 5, 3), np.uint8)), "must be 7x5, as the index says; it is 5x7"),
        (png(np.zeros((60_000, 1, 3), np.uint8)), "must be 7x5, as the index says; it is 1x60000"),
        (png(RGB)[:-20], "must be a whole PNG; its signature or its end"),
        (png(RGB)[:40] + png(RGB)[-24:], "cannot be read"),
    ],
)
def test_images_that_are_not_plain(content: bytes, sentence: str) -> None:
    """Even if the index vouches for the file."""
    files = encode(poison_set())
    index = json.loads(files["poisons.json"])
    index["poisons"][1]["sha256"] = hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match=f"poison_00001.png {sentence}" if "it has" not in sentence else sentence):
        decode(json.dumps(index).encode(), lambda name: content if name == "poison_00001.png" else files[name])


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    index = json.loads(encode(poison_set())["poisons.json"])
    change(index)
    return json.dumps(index).encode()


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "/tmp/a.png", "sub/a.png", "..", ".hidden.png", "a..png", "a.jpg", "a\\b.png", ""],
)
def test_paths_that_lead_elsewhere(name: str) -> None:
    """No file is so much as looked for."""
    with pytest.raises(InputError, match="must be the plain name of a .png beside it; it is"):
        decode(changed(lambda index: index["poisons"][1].update(file=name)), lambda name: pytest.fail(name))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda index: index.pop("target"), "poisons.json: target: Field required"),
        (lambda index: index.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda index: index.update(format="assay poisons 2"), "format: Input should be 'assay poisons 1'"),
        (lambda index: index.update(scale=1), "scale: Input should be 255"),
        (lambda index: index.update(channels=4), "channels: Input should be 1 or 3"),
        (lambda index: index.update(width=10**6), "width: Input should be less than or equal to 4096"),
        (lambda index: index.update(poisons=[]), "poisons: Tuple should have at least 1 item"),
        (lambda index: index["poisons"][0].update(label="6"), "poisons.0.label: Input should be a valid integer"),
        (lambda index: index["poisons"][0].update(sha256="0"), "poisons.0.sha256: String should match pattern"),
        (
            lambda index: index["poisons"][0].update(base=None),
            "poisons.0.base in .* must be the image",
        ),
        (
            lambda index: index["poisons"][0].update(index["poisons"][1]),
            "it names 'poison_00001.png' more often",
        ),
    ],
)
def test_indices_that_are_wrong(change: Callable[[dict[str, Any]], object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        decode(changed(change), lambda name: pytest.fail(name))


def test_indices_that_are_absurd() -> None:
    huge = changed(lambda index: index.update(width=4096, height=4096, poisons=index["poisons"] * 20))
    with pytest.raises(TooLargeError, match="it holds about 4,076,863,488"):
        decode(huge, lambda name: pytest.fail(name))
    for content in (b"", b"[]", b"\x80\x04", b"{" * 100_000):
        with pytest.raises(InputError, match="poisons.json: "):
            decode(content, lambda name: pytest.fail(name))


def test_folders_that_have_changed(tmp_path: Path) -> None:
    """A missing, changed, swapped or linked file."""
    folder = tmp_path / "poisons"
    write_folder(poison_set(), folder)
    assert same(read(folder), poison_set())
    file = folder / "poison_00003.png"
    good = file.read_bytes()
    file.write_bytes(png(RGB))
    with pytest.raises(InputError, match="poison_00003.png is not the file that .* was written with"):
        read(folder)
    file.unlink()
    with pytest.raises(InputError, match="poison_00003.png' cannot be read: No such file"):
        read(folder)
    (tmp_path / "elsewhere.png").write_bytes(good)
    file.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match="poison_00003.png' cannot be read"):
        read(folder)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match="poison_00003.png' must be a plain file"):
        read(folder)
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match="poison_00003.png' must be a plain file"):
        read(folder)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(tmp_path / "nowhere")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    write(poison_set(), files.__setitem__, files.__getitem__)
    assert list(files)[-1] == "poisons.json", "the index comes after what it names"
    other = encode(replace(poison_set(), target=255 - poison_set().target))
    with pytest.raises(RuntimeError, match="do not hold the pixels that were written"):
        write(poison_set(), lambda *_: None, other.__getitem__)
    truncated = {name: content[:-1] for name, content in files.items()}
    with pytest.raises(InputError):
        write(poison_set(), lambda *_: None, truncated.__getitem__)
