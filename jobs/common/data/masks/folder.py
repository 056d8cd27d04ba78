"""A folder of images and masks of the user's own.

<root>/train/images/*   <root>/train/masks/*     an image and its mask have the same name but for the ending
<root>/val/images/*     <root>/val/masks/*       or test in place of val
"""

from functools import partial
from pathlib import Path

from PIL import ImageColor

from jobs.common.data.image_files import hidden
from jobs.common.data.masks.base import Colour, Files, Source, palette
from jobs.common.data.masks.mask_files import check_colours, read_mask
from jobs.common.data.sets import Split
from service.errors import InputError

FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("val", "test")}


def mask_folder(split: Split, source: Source) -> Files:
    """Images with masks of indices, or of one colour for each class."""
    count = len(source.classes)
    if source.root is None or count < 2:
        raise InputError("mask_folder needs root, the folder that holds train and val, and the names of its classes")
    check_colours(source.colours, count)
    folders = [source.folder / name for name in FOLDERS[split]]
    folder = next((each for each in folders if each.is_dir()), folders[0])
    images, masks = (_by_name(folder / part) for part in ("images", "masks"))
    if lacking := sorted(images.keys() ^ masks.keys()):
        which = "mask" if lacking[0] in images else "image"
        raise InputError(
            f"mask_folder: {lacking[0]!r} in {str(folder)!r} has no {which}, nor have {len(lacking) - 1} more"
        )
    files = [(images[name], masks[name]) for name in sorted(images)]
    colours: tuple[Colour, ...] = palette(count)
    if source.colours:
        colours = tuple(_rgb(colour) for colour in source.colours)
    return Files(
        "mask_folder", source.classes, colours, files, partial(read_mask, classes=count, colours=source.colours)
    )


def _rgb(colour: str) -> Colour:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"mask_folder: there is no folder {str(folder)!r}")
    visible = [file for file in sorted(folder.iterdir()) if file.is_file() and not hidden(file.name)]
    files = {file.stem: file for file in visible}
    if twice := [file.name for file in visible if files[file.stem] != file]:
        raise InputError(f"mask_folder: {str(folder)!r} has two files of the name of {twice[0]!r}, without the ending")
    return files
