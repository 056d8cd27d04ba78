"""`python -m jobs.invisibility_cloak.physical sheet | colours | protocol`: for users with a printer and a camera.

sheet PATCH PDF      the sheets to print a patch on; PATCH: an image, such as patch-NAME.png of a run
colours PHOTO JSON   the colour map of printer and camera, from a photograph of a printed sheet
protocol FOLDER      success, partial success or failure for every person in photographs, or in frames of a video;
                     their boxes are in YOLO's format (`--data coco_folder`: in COCO's)
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from jobs.common.data.boxes import DataParams
from jobs.common.data.image_files import decode
from jobs.common.detection.check import as_detector
from jobs.common.detection.detectors import PRETRAINED
from jobs.common.imports import resolve
from jobs.invisibility_cloak.physical import colour_map
from jobs.invisibility_cloak.physical.layout import PAPERS, SheetParams
from jobs.invisibility_cloak.physical.protocol import judged_set, rates
from jobs.invisibility_cloak.physical.sheet import print_sheets
from service.errors import AssayError, InputError, first_line

Known = TypeVar("Known", bound=BaseModel)


def main(words: Sequence[str] | None = None) -> int:
    """words: of the command; None: those that the program was called with. Returns the exit code."""
    arguments = parser().parse_args(words)
    try:
        print(arguments.act(arguments))
    except AssayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """Of the three commands."""
    whole = argparse.ArgumentParser(prog="python -m jobs.invisibility_cloak.physical", description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = whole.add_subparsers(required=True)
    sheet = commands.add_parser("sheet", help="the sheets to print a patch on, as a PDF")
    sheet.add_argument("patch", type=Path, help="an image of the patch")
    sheet.add_argument("pdf", type=Path, help="the file to write")
    for name, field in SheetParams.model_fields.items():
        kind = {"choices": sorted(PAPERS)} if name == "paper" else {"type": float}
        sheet.add_argument(f"--{name}", default=field.default, help=field.description, **kind)
    sheet.set_defaults(act=_sheet)
    colours = commands.add_parser("colours", help="the colour map from a photograph of a printed sheet, as JSON")
    colours.add_argument("photograph", type=Path, help="the whole sheet in it")
    colours.add_argument("json", type=Path, help="the file to write")
    colours.add_argument("--paper", choices=sorted(PAPERS), default="a4", help="what the sheet was printed on")
    colours.set_defaults(act=_colours)
    protocol = commands.add_parser("protocol", help="whether a patch worked in photographs")
    protocol.add_argument("folder", help="photographs, and the boxes of the people in them")
    protocol.add_argument("--data", choices=("yolo_folder", "coco_folder"), default="yolo_folder", help="how they lie")
    protocol.add_argument("--split", choices=("train", "test"), default="test", help="of the folder")
    protocol.add_argument("--detector", default="yolov3_tiny", help="name, or import path mypackage.module:load")
    protocol.add_argument("--class", dest="class_name", default="person", help="of the people, in both")
    protocol.add_argument("--confidence", type=float, default=0.5, help="of a box that counts")
    protocol.set_defaults(act=_protocol)
    return whole


def _sheet(arguments: argparse.Namespace) -> str:
    params = _parameters(SheetParams, paper=arguments.paper, width=arguments.width, overlap=arguments.overlap)
    patch = np.asarray(decode(arguments.patch, arguments.patch.name))
    _write(arguments.pdf, print_sheets(patch, params, arguments.patch.stem))
    return f"{arguments.pdf}: print it at 100 %, without fitting it to the page"


def _colours(arguments: argparse.Namespace) -> str:
    found = colour_map.estimated(arguments.photograph, arguments.paper)
    _write(arguments.json, found.text().encode())
    return (
        f"{arguments.json}: error of a colour {found.error:.3f} of the range, on swatches that were left out; "
        f"{found.unmapped:.3f} without a map"
    )


def _protocol(arguments: argparse.Namespace) -> str:
    if not 0 < arguments.confidence < 1:
        raise InputError(f"confidence must be above 0 and below 1; it is {arguments.confidence:g}")
    build = resolve(arguments.detector, PRETRAINED, "detector")
    detector = as_detector(build(), arguments.detector, tried=":" in arguments.detector)
    data = _parameters(DataParams, name=arguments.data, root=arguments.folder).load(arguments.split)
    persons = judged_set(detector, data, arguments.class_name, arguments.confidence)
    lines = [f"{len(data)} photographs, {len(persons)} boxes of class {arguments.class_name}, {detector.name}:"]
    for row in rates(persons):
        interval = f"95 % interval {row['low']:.2f} to {row['high']:.2f}"
        lines.append(f"{row['outcome']}: {row['count']} of {row['of']}, {row['share']:.2f} ({interval})")
    return "\n".join(lines)


def _parameters(section: type[Known], **fields: object) -> Known:
    """What the command line says, checked. InputError, one sentence, about the first field that is not allowed."""
    try:
        return section.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise InputError(f"{place}: {first['msg']}; it is {first['input']!r}".removeprefix(": ")) from error


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {first_line(error)}") from error


if __name__ == "__main__":
    sys.exit(main())
