"""What a job makes, as the content of a file."""

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet
from PIL import Image

from service.handle.rows import table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.mathtext import MathTextParser

HIGHEST_RATE = 1_000_000  # samples a second of a sound: the picture of it takes memory by its rate


def parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """A table. A row need not have every column: what it lacks is null."""
    data = io.BytesIO()
    pyarrow.parquet.write_table(table_of(rows), data)
    return data.getvalue()


def drawn(figure: "Figure") -> bytes:
    """A matplotlib figure as PNG."""
    data = io.BytesIO()
    _check_formulas(figure)
    figure.savefig(data, format="png", dpi=144, bbox_inches="tight")
    return data.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """pixels: uint8 (height, width, 3)."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return data.getvalue()


def gif(frames: Sequence[np.ndarray], seconds_per_frame: float) -> bytes:
    """An animation that repeats. frames: uint8 (height, width, 3) each."""
    first, *rest = [Image.fromarray(frame).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    data = io.BytesIO()
    milliseconds = round(1000 * seconds_per_frame)
    first.save(data, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return data.getvalue()


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A sound of 16 bits; what is louder than 1 is clipped. samples: float (n,) or (n, channels), finite; rate: Hz."""
    import soundfile  # few jobs make sounds

    data = io.BytesIO()
    soundfile.write(data, samples.clip(-1, 1), rate, format="WAV", subtype="PCM_16")
    return data.getvalue()


def npy(values: np.ndarray) -> bytes:
    """A numeric array."""
    data = io.BytesIO()
    np.save(data, values, allow_pickle=False)
    return data.getvalue()


def _check_formulas(figure: "Figure") -> None:
    """Show texts between dollar signs that are no formulas, such as names of users, as they are.

    Matplotlib would raise an error about them when all is computed.
    """
    from matplotlib.text import Text  # a worker does without

    for axes in figure.axes:
        axes.get_xticklabels()  # made now, if they are names
        axes.get_yticklabels()
    for text in figure.findobj(Text):
        if text.get_text().count("$") > 1:
            try:
                _formulas().parse(text.get_text())
            except ValueError:
                text.set_parse_math(False)


@cache
def _formulas() -> "MathTextParser[Any]":
    """One for all figures: it knows the last formulas, such as the powers of ten along an axis."""
    from matplotlib.mathtext import MathTextParser

    return MathTextParser("path")
