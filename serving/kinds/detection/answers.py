"""What a detector answers: as tensors of one shape; and about one image as JSON with names, and drawn over it."""

import colorsys
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jobs.common.detection.boxes import Boxes
from serving.http.tensors import Array
from serving.kinds.work import Answer

HUES = 0.27  # of the circle, from one class to the next: those of a hundred classes differ
LONGEST = 24  # characters of a name that are drawn
NONE = -1  # the label of a row that stands for no box


def as_tensors(found: Sequence[Boxes], most: int) -> dict[str, Array]:
    """The outputs about images, with `most` rows for each: those that stand for no box come last."""
    rows = len(found)
    outputs: dict[str, Array] = {
        "boxes": np.zeros((rows, most, 4), np.float32),
        "labels": np.full((rows, most), NONE, np.int64),
        "scores": np.zeros((rows, most), np.float32),
        "count": np.array([min(len(boxes), most) for boxes in found], np.int64),
    }
    for row, boxes in enumerate(found):
        assert boxes.scores is not None
        count = outputs["count"][row]
        outputs["boxes"][row, :count] = boxes.corners[:count].numpy()
        outputs["labels"][row, :count] = boxes.labels[:count].numpy()
        outputs["scores"][row, :count] = boxes.scores[:count].numpy()
    return outputs


@dataclass(frozen=True)
class Seen:
    """One box of an answer. corners: left, top, right, bottom in pixels."""

    label: int
    name: str
    score: float
    corners: tuple[float, ...]


def seen(classes: Sequence[str], answer: Answer) -> Iterator[Seen]:
    """The boxes of an answer about one image, the surest first."""
    for place in range(int(answer["count"][0])):
        label = int(answer["labels"][0, place])
        corners = tuple(float(corner) for corner in answer["boxes"][0, place])
        yield Seen(label, classes[label], float(answer["scores"][0, place]), corners)


def as_json(classes: Sequence[str], size: tuple[int, int], answer: Answer) -> bytes:
    """The boxes of an answer about one image. size: its height and width."""
    height, width = size
    objects = [
        {
            "label": each.label,
            "class": each.name,
            "score": round(each.score, 4),
            "box": [round(corner, 2) for corner in each.corners],
        }
        for each in seen(classes, answer)
    ]
    return json.dumps({"width": width, "height": height, "objects": objects}).encode()


def drawn(classes: Sequence[str], image: Array, answer: Answer) -> bytes:
    """A PNG of an image (3, height, width) in [0, 1] with the boxes of the answer about it."""
    picture = Image.fromarray(np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0))
    drawing = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 320))
    font = ImageFont.load_default(max(10, round(max(picture.size) / 50)))
    for each in reversed(list(seen(classes, answer))):  # the surest on top
        colour = colour_of(each.label)
        left, top, right, bottom = each.corners
        drawing.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
        text = f"{_plain(each.name)} {each.score:.2f}"
        box = drawing.textbbox((0, 0), text, font=font)
        across, down = box[2] + 4, box[3] + 2
        at = (min(left, max(0, picture.width - across)), top - down if top >= down else top)
        drawing.rectangle((*at, at[0] + across, at[1] + down), fill=colour)
        drawing.text((at[0] + 2, at[1]), text, font=font, fill="black")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def colour_of(label: int) -> tuple[int, int, int]:
    """Of a class: light enough for black text on it."""
    red, green, blue = colorsys.hls_to_rgb((0.33 + HUES * label) % 1, 0.62, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _plain(name: str) -> str:
    """A name of a stranger's card as the font can draw it."""
    text = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}."
    return "".join(each if each.isprintable() and ord(each) < 256 else "?" for each in text)
