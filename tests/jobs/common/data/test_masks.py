"""Masks as people have them, good and bad; the published sets from small copies of their folders; the made sets."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from pydantic import ValidationError

from jobs.common.data.masks import DataParams
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.masks.base import Pairs, Source, labels_in, palette
from jobs.common.data.masks.composites import paste
from jobs.common.data.masks.mask_files import read_mask
from jobs.common.data.masks.published import VOC_CLASSES, voc_palette
from jobs.common.data.masks.satellite import satellite
from jobs.common.data.masks.shapes import covered, shapes
from jobs.common.data.training_data import TrainingMasks
from jobs.common.metrics.segmentation import IGNORE
from service.errors import InputError

LABELS = np.array([[0, 1, 2, 2], [0, 1, 255, 2], [0, 0, 1, 1]], np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "mask.png", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, **options)
    return folder / name


def test_masks_of_indices_in_all_modes(tmp_path: Path) -> None:
    coloured = Image.fromarray(LABELS).convert("P")
    coloured.putdata(LABELS.flatten().tolist())
    coloured.putpalette([part for colour in voc_palette() for part in colour])
    modes = {
        "grey.png": Image.fromarray(LABELS),
        "palette.png": coloured,
        "deep.png": Image.fromarray(LABELS.astype(np.uint16)),
        "deep.tif": Image.fromarray(LABELS.astype(np.uint16)),
        "equal.png": Image.fromarray(np.stack([LABELS] * 3, axis=2)),
        "opaque.png": Image.merge("LA", [Image.fromarray(LABELS), Image.new("L", (4, 3), 255)]),
    }
    for name, image in modes.items():
        assert read_mask(saved(tmp_path, image, name), 3).tolist() == LABELS.tolist(), name


def test_what_is_transparent_does_not_count(tmp_path: Path) -> None:
    alpha = Image.fromarray(np.where(LABELS == 1, 0, 255).astype(np.uint8))
    mask = saved(tmp_path, Image.merge("LA", [Image.fromarray(LABELS), alpha]))
    assert read_mask(mask, 3).tolist() == np.where(LABELS == 1, IGNORE, LABELS).tolist()


def test_masks_of_colours(tmp_path: Path) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[:3] = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    pixels = table[np.where(LABELS == 255, 0, LABELS)]
    mask = saved(tmp_path, Image.fromarray(pixels))
    expected = np.where(LABELS == 255, 0, LABELS)
    assert read_mask(mask, 3, ("black", "#ff0000", "blue")).tolist() == expected.tolist()
    with pytest.raises(InputError, match=r"has colours \(#000000, #0000ff, #ff0000, …\), not label indices") as raised:
        read_mask(mask, 3)
    assert "say which class each colour stands for" in str(raised.value)
    pixels[0, 0] = [120, 3, 0]
    with pytest.raises(InputError, match="1 pixels of colours that no class has: #780300"):
        read_mask(saved(tmp_path, Image.fromarray(pixels)), 3, ("black", "#ff0000", "blue"))


def test_colours_hold_for_masks_of_all_modes(tmp_path: Path) -> None:
    """Black and white, as other tools write masks: 255 is a class then, and not what is left out."""
    labels = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    grey = Image.fromarray(255 * labels)
    modes = {
        "grey.png": grey,
        "bits.png": grey.convert("1"),
        "palette.png": grey.convert("P"),
        "rgb.png": grey.convert("RGB"),
        "alpha.png": grey.convert("LA"),
    }
    for name, image in modes.items():
        mask = saved(tmp_path, image, name)
        assert read_mask(mask, 2, ("#000000", "#ffffff")).tolist() == labels.tolist(), name
        assert read_mask(mask, 2, ("white", "black")).tolist() == (1 - labels).tolist(), name
    with pytest.raises(InputError, match="3 pixels of colours that no class has: #ffffff"):
        read_mask(tmp_path / "grey.png", 2, ("#000000", "#ff0000"))
    grey.convert("P").save(tmp_path / "clear.png", transparency=0)
    assert read_mask(tmp_path / "clear.png", 2, ("black", "white")).tolist() == [[255, 1, 1], [1, 255, 255]]
    deep = saved(tmp_path, Image.fromarray(labels.astype(np.uint16) * 65535), "deep.png")
    with pytest.raises(InputError, match="its colours must have 8 bits a channel; they have more"):
        read_mask(deep, 2, ("black", "white"))


def test_bad_masks_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 pixels of labels 2; they must be from 0 to 1|3 pixels of labels 2"):
        read_mask(saved(tmp_path, Image.fromarray(LABELS)), 2)
    deep = np.full((3, 4), 40_000, np.uint16)
    with pytest.raises(InputError, match="12 pixels of labels 40000; they must be from 0 to 2, or 255"):
        read_mask(saved(tmp_path, Image.fromarray(deep), "deep.png"), 3)
    with pytest.raises(InputError, match="none of PNG, TIFF, BMP, GIF .formats that lose detail"):
        read_mask(saved(tmp_path, Image.fromarray(LABELS), "mask.jpg"), 3)
    with pytest.raises(InputError, match="its pixels must be whole numbers"):
        read_mask(saved(tmp_path, Image.fromarray(LABELS.astype(np.float32)), "float.tif"), 3)
    with pytest.raises(InputError, match="it must be grey, RGB or of a palette; it is CMYK"):
        read_mask(saved(tmp_path, Image.fromarray(LABELS).convert("CMYK"), "cmyk.tif"), 3)
    with pytest.raises(InputError, match="12 pixels of labels -1; they must be from 0 to 2"):
        read_mask(saved(tmp_path, Image.fromarray(np.full((3, 4), -1, np.int32)), "signed.tif"), 3)
    (tmp_path / "deep_rgb.png").write_bytes(deep_rgb())
    with pytest.raises(InputError, match="its colours must have 8 bits a channel; they have more"):
        read_mask(tmp_path / "deep_rgb.png", 3)
    whole = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 3, (90, 90)).astype(np.uint8)))
    whole.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(InputError, match=r"mask '.*mask.png' cannot be read: "):
        read_mask(whole, 3)
    with pytest.raises(InputError, match="cannot be read"):
        read_mask(tmp_path / "absent.png", 3)


def deep_rgb() -> bytes:
    """A PNG of one pixel (1, 1, 1) in 16 bits a channel, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, pixels = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), zlib.compress(b"\0" + 3 * b"\0\1")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def folder_of(root: Path, split: str, count: int = 3, size: tuple[int, int] = (4, 3)) -> None:
    for index in range(count):
        saved(root / split / "images", Image.new("RGB", size, (index, 100, 200)), f"{index}.jpg")
        saved(root / split / "masks", Image.fromarray(LABELS).resize(size, 0), f"{index}.png")


def test_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder_of(tmp_path, split)
    data = DataParams(name="mask_folder", root=str(tmp_path), classes=("sky", "sea", "land"), test_limit=2)
    train, test = data.load("train"), data.load("test")
    image, labels = train.pair(0)
    assert (len(train), len(test)) == (3, 2) and train.classes == ("sky", "sea", "land")
    assert image.shape == (3, 3, 4) and image.dtype == torch.uint8 and labels.tolist() == LABELS.tolist()
    assert train.digest != test.digest and not train.in_memory
    # crops larger than the images, decoded by threads
    augmentation = JointAugmentationParams(crop=16)
    images, maps = TrainingMasks(train, 1, 2, augmentation, lambda *key: 0).batch(0)
    assert images.shape == (2, 3, 16, 16) and maps.shape == (2, 16, 16) and float(images.max()) <= 1


def test_folders_that_do_not_fit_are_said(tmp_path: Path) -> None:
    def load(**options: Any) -> Any:
        return DataParams(**{"name": "mask_folder", "root": str(tmp_path), "classes": ("a", "b", "c")} | options)

    with pytest.raises(InputError, match="there is no folder"):
        load().load("train")
    folder_of(tmp_path, "train")
    with pytest.raises(InputError, match="data.colours must be 3 different ones, one for each class"):
        load(colours=("red", "blue")).load("train")
    with pytest.raises(InputError, match="needs root, the folder that holds train and val, and the names"):
        load(classes=()).load("train")
    with pytest.raises(InputError, match="data.train_limit must be at most 3, the number of examples of mask_f"):
        load(train_limit=9).load("train")
    saved(tmp_path / "train/masks", Image.fromarray(LABELS).resize((8, 6), 0), "1.png")
    with pytest.raises(InputError, match=r"mask '.*1.png' is 8x6, but its image is 4x3"):
        load().load("train").pair(1)
    (tmp_path / "train/masks/2.png").unlink()
    with pytest.raises(InputError, match=r"'2' in '.*train' has no mask"):
        load().load("train")


def test_a_photograph_counts_as_it_is_seen(tmp_path: Path) -> None:
    """Turned by its EXIF data: a mask of that size fits, one of the size in the file does not."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    saved(tmp_path / "train/images", Image.new("RGB", (4, 3)), "0.jpg", exif=exif)
    mask = saved(tmp_path / "train/masks", Image.fromarray(LABELS.T.copy()), "0.png")
    images = DataParams(name="mask_folder", root=str(tmp_path), classes=("a", "b", "c")).load("train")
    assert images.pair(0)[0].shape == (3, 4, 3)
    Image.fromarray(LABELS).save(mask)
    with pytest.raises(InputError, match="the mask must be turned as well"):
        images.pair(0)


def test_labels_that_occur_are_read_until_all_have() -> None:
    labels = torch.tensor([[[0, 255]], [[2, 0]], [[1, 1]]], dtype=torch.uint8)
    images = Pairs("own", ("a", "b", "c"), palette(3), torch.zeros(3, 3, 1, 2, dtype=torch.uint8), labels)
    assert labels_in(images) == {0, 1, 2, 255}
    assert labels_in(Pairs("own", ("a",), palette(1), images._images, labels.flip(0))) == {0, 1, 2}, "not the third"
    assert labels_in(Pairs("own", ("a", "b", "c", "d"), palette(4), images._images, labels)) == {0, 1, 2, 255}


def test_images_of_several_sizes_need_a_crop(tmp_path: Path) -> None:
    folder_of(tmp_path, "train", 2)
    saved(tmp_path / "train/images", Image.new("RGB", (9, 9)), "0.jpg")
    saved(tmp_path / "train/masks", Image.new("L", (9, 9)), "0.png")
    folder_of(tmp_path / "more", "train", 1)
    saved(tmp_path / "train/images", Image.new("RGB", (9, 9)), "9.jpg")
    saved(tmp_path / "train/masks", Image.new("L", (9, 9)), "9.png")
    images = DataParams(name="mask_folder", root=str(tmp_path), classes=("a", "b", "c")).load("train")
    with pytest.raises(InputError, match=r"2 sizes in one batch .augmentation.crop cuts"):
        for seed in range(9):
            TrainingMasks(images, 1, 2, JointAugmentationParams(), lambda *key, seed=seed: seed).batch(0)


def voc_folder(root: Path) -> None:
    """VOC with one image in train and one in val, SBD with these and another one."""
    voc = root / "VOCdevkit/VOC2012"
    for name in ("train_image", "val_image"):
        saved(voc / "JPEGImages", Image.new("RGB", (4, 3)), f"{name}.jpg")
        saved(voc / "SegmentationClass", Image.fromarray(LABELS), f"{name}.png")
    splits = voc / "ImageSets/Segmentation"
    splits.mkdir(parents=True)
    (splits / "train.txt").write_text("train_image\n")
    (splits / "val.txt").write_text("val_image\n")


def test_voc_alone_and_with_sbd(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold VOCdevkit/VOC2012"):
        DataParams(name="voc2012", root=str(tmp_path)).load("train")
    voc_folder(tmp_path)
    data = DataParams(name="voc2012", root=str(tmp_path))
    assert len(data.load("train")) == len(data.load("test")) == 1 and data.load("test").classes == VOC_CLASSES
    sbd = tmp_path / "benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    (sbd / "train.txt").write_text("train_image\nval_image\n")
    (sbd / "val.txt").write_text("other\n")
    saved(sbd / "img", Image.new("RGB", (4, 3)), "other.jpg")
    scipy.io.savemat(sbd / "cls/other.mat", {"GTcls": {"Segmentation": LABELS % 21}})
    train = data.load("train")
    assert len(train) == 2, "what is in VOC's val is not trained on"
    assert train.pair(1)[1].tolist() == (LABELS % 21).tolist()
    scipy.io.savemat(sbd / "cls/other.mat", {"GTcls": {"Segmentation": LABELS.astype(np.int32) + 256}})
    with pytest.raises(InputError, match="other.mat' has 12 pixels of labels 256, 257, 258, 511"):
        train.pair(1)


def test_the_colours_of_voc() -> None:
    """The first ones as the development kit prints them."""
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert list(voc_palette()[:7]) == expected and voc_palette()[20] == (0, 64, 128)


def test_cityscapes(tmp_path: Path) -> None:
    """Ids of labels become those that are trained on; the others do not count."""
    for name in ("train/town/town_0", "val/b/town_0", "val/a/town_0", "val/c/town_0"):
        saved((tmp_path / "leftImg8bit" / name).parent, Image.new("RGB", (4, 3)), "town_0_leftImg8bit.png")
        ids = Image.fromarray(np.array([[7, 8, 33, 0]] * 3, np.uint8))
        saved((tmp_path / "gtFine" / name).parent, ids, "town_0_gtFine_labelIds.png")
    images = DataParams(name="cityscapes", root=str(tmp_path)).load("test")
    assert [image.parent.name for image, _ in images._files] == ["a", "b", "c"], "in the same order on all disks"
    (tmp_path / "leftImg8bit/val/a/._town_0_leftImg8bit.png").write_bytes(b"")
    assert len(DataParams(name="cityscapes", root=str(tmp_path)).load("test")) == 3, "without what is hidden"
    assert len(images.classes) == 19 and images.classes[:2] == ("road", "sidewalk")
    assert images.pair(0)[1].tolist() == [[0, 1, 18, 255]] * 3 and images.palette[0] == (128, 64, 128)
    with pytest.raises(InputError, match="does not hold the data set"):
        DataParams(name="cityscapes", root=str(tmp_path / "nowhere")).load("train")


def test_the_mosaic_shows_what_its_mask_says() -> None:
    """Ocean is much bluer than land: measured beforehand, +47 and -18 on the whole mosaic. Upside down it is not."""
    images = satellite("test", Source())
    pairs = [images.pair(index) for index in range(len(images))]
    pixels, labels = (torch.stack(each) for each in zip(*pairs, strict=True))
    blue = pixels[:, 2].double() - pixels[:, 0].double()
    assert len(images) == 200 and pixels.shape[1:] == (3, 64, 64)
    assert float(blue[labels == 0].mean()) > 30 > 0 > float(blue[labels == 1].mean())
    for label in (0, 1):
        assert float((labels == label).double().mean((1, 2)).min()) >= 0.05


def test_shapes_fill_what_they_should() -> None:
    down, across = np.mgrid[-1.5:1.5:300j, -1.5:1.5:300j]
    for kind, area in ((1, np.pi), (2, 4.0), (3, 2.0)):
        assert covered(kind, down, across).mean() * 9 == pytest.approx(area, rel=0.02)
    images = shapes("test", Source(side=32))
    image, labels = images.pair(0)
    assert image.shape == (3, 32, 32)
    bright = image.double().mean(0)
    assert float(bright[labels > 0].mean()) > float(bright[labels == 0].mean()) + 40


def test_pasting_is_exact() -> None:
    glyph = Image.new("RGBA", (4, 4), (200, 10, 20, 255))
    glyph.putpixel((1, 1), (0, 0, 0, 0))
    glyph.putpixel((2, 1), (200, 10, 20, 128))
    image, labels = np.full((6, 6, 3), 100, np.uint8), np.zeros((6, 6), np.uint8)
    paste(image, labels, glyph, 3, 4, -1)  # partly below and left of the image
    assert labels[4:, :3].tolist() == [[3, 3, 3], [0, 255, 3]] and not labels[:4].any() and not labels[:, 3:].any()
    assert image[4, 0].tolist() == [200, 10, 20] and image[5, 0].tolist() == [100, 100, 100]
    assert image[5, 1].tolist() == [150, 55, 60]


def test_composites_say_what_they_need(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"NotoColorEmoji.ttf' .`make data` fetches it"):
        DataParams(name="composites", root=str(tmp_path)).load("train")


@pytest.mark.parametrize("field", [{"classes": ("sea", "land")}, {"colours": ("#000000", "#ffffff")}])
def test_sets_that_name_their_own_classes_take_none(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must be none for satellite, whose classes are its own"):
        DataParams(name="satellite", **field)


def test_names_and_palettes() -> None:
    with pytest.raises(ValueError, match="unknown data set 'satelite'.*satellite"):
        DataParams(name="satelite").load("train")
    with pytest.raises(InputError, match="lacks name, classes, palette"):
        DataParams(name="tests.jobs.common.data.test_masks:unfit").load("train")
    with pytest.raises(ValidationError):
        DataParams(side=3)
    assert len(set(palette(60))) == 60


def fields(split: str, source: Source, images: Any = None, labels: Any = None) -> Pairs:
    """Sets of the user's own, with something wrong."""
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8) if images is None else images
    return Pairs("fields", ("a", "b"), palette(2), pixels, pixels[:, 0] if labels is None else labels)


def floats(split: str, source: Source) -> Pairs:
    return fields(split, source, images=torch.zeros(1, 3, 4, 4))


def long_labels(split: str, source: Source) -> Pairs:
    return fields(split, source, labels=torch.zeros(1, 4, 4, dtype=torch.int64))


def third_label(split: str, source: Source) -> Pairs:
    return fields(split, source, labels=torch.full((1, 4, 4), 2, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("floats", r"must be torch.uint8 \(3, height, width\); the first is torch.float32 \(3, 4, 4\)"),
        ("long_labels", r"must be torch.uint8 \(4, 4\); those of the first image are torch.int64 \(4, 4\)"),
        ("third_label", "the first mask of '.*' has 16 pixels of labels 2; they must be from 0 to 1, or 255"),
    ],
)
def test_a_set_of_ones_own_is_checked(name: str, sentence: str) -> None:
    assert len(DataParams(name="tests.jobs.common.data.test_masks:fields").load("train")) == 1
    with pytest.raises(InputError, match=sentence):
        DataParams(name=f"tests.jobs.common.data.test_masks:{name}").load("train")


def unfit(split: str, source: Source) -> list[int]:
    return [1, 2]
