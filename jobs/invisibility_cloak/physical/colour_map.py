"""What printer and camera make of colours: a smooth map, estimated from a photograph of a printed sheet."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from jobs.common.data.image_files import decode
from jobs.invisibility_cloak.physical import layout
from jobs.invisibility_cloak.physical.layout import PaperName
from jobs.invisibility_cloak.physical.views import moved, sampled, view
from service.errors import InputError, first_line

TERMS = 10  # of a polynomial of second degree in three variables
LONGEST = 2400  # pixels of a side in which marks are looked for
SAMPLES, CORE = 7, 0.5  # points along a side of a swatch whose median is its colour, and the part of it they span
STRANGE = 0.5  # error, in standard deviations of the colours, beyond which what was photographed is no sheet of ours
MOST_BYTES = 100_000  # of a file with a map


@dataclass(frozen=True)
class ColourMap:
    """A polynomial of second degree from the colours of the patch to those of the photograph."""

    coefficients: Tensor
    """float32 (10, 3): of 1, r, g, b, r², g², b², rg, rb, gb for each of red, green and blue"""
    error: float
    """root mean square over swatches that the map was not fitted to (leave one out), colours in [0, 1]"""
    unmapped: float
    """the same if colours were taken to stay as they are"""

    def __call__(self, images: Tensor) -> Tensor:
        """Colours as they are seen after printing and photographing. images: (..., 3, height, width) in [0, 1]."""
        colours = torch.einsum("...thw,tc->...chw", terms(images, -3), self.coefficients.to(images))
        return colours.clamp(0, 1)

    def text(self) -> str:
        """As JSON."""
        content = _File(coefficients=self.coefficients.tolist(), error=self.error, unmapped=self.unmapped)
        return json.dumps(content.model_dump(), indent=1)


def terms(colours: Tensor, dimension: int) -> Tensor:
    """The ten terms of the polynomial, along the dimension in which colours are three."""
    r, g, b = colours.unbind(dimension)
    return torch.stack([torch.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b], dimension)


def fitted(printed: np.ndarray, photographed: np.ndarray) -> ColourMap:
    """The polynomial of least squares. printed, photographed: float (n, 3) in [0, 1], n above 10.

    The error of leaving each colour out comes from the residuals and the diagonal of the hat matrix (Allen 1974).
    InputError if the colours are too few or too much alike to say.
    """
    if len(printed) <= TERMS:
        raise InputError(f"a colour map must be fitted to more than {TERMS} colours; they are {len(printed)}")
    design = terms(torch.from_numpy(np.asarray(printed, np.float64)), 1).numpy()  # (n, 10)
    orthogonal, triangle = np.linalg.qr(design)
    if np.abs(np.diag(triangle)).min() < 1e-9 * np.abs(triangle).max():
        raise InputError("the colours are too much alike for a colour map")
    coefficients = np.linalg.solve(triangle, orthogonal.T @ photographed)
    leverage = np.square(orthogonal).sum(1, keepdims=True)
    residuals = (photographed - design @ coefficients) / np.maximum(1 - leverage, 1e-9)
    return ColourMap(
        torch.from_numpy(coefficients).float(),
        error=float(np.sqrt(np.square(residuals).mean())),
        unmapped=float(np.sqrt(np.square(photographed - printed).mean())),
    )


def estimated(file: Path, paper: PaperName) -> ColourMap:
    """The map from a photograph of a sheet. InputError, naming the file, if it shows none."""
    try:
        return estimated_from(decode(file, file.name), paper)
    except InputError as error:
        if file.name in error.message:
            raise
        raise InputError(f"{file.name}: {error.message}", error.hint) from error


def estimated_from(photograph: Image.Image, paper: PaperName) -> ColourMap:
    """The map from a photograph of a sheet, upright or turned, seen from wherever. InputError if it shows none."""
    from jobs.invisibility_cloak.physical.marks import find_marks  # loads much of scipy, which no worker needs

    if max(photograph.size) > LONGEST:
        photograph = photograph.copy()
        photograph.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    pixels = np.asarray(photograph.convert("RGB"), np.float64) / 255
    corners = find_marks(pixels.mean(2))
    best, least = None, STRANGE
    for turn in range(4):
        photographed = _colours(pixels, np.roll(corners, turn, 0), paper)
        candidate = fitted(layout.colours(), photographed)
        if candidate.error < least * photographed.std():
            best, least = candidate, candidate.error / float(photographed.std())
    if best is None:
        raise InputError(
            f"the colours between the marks are not those of a sheet of {paper.upper()}: "
            "no smooth map takes one to the other"
        )
    return best


def _colours(pixels: np.ndarray, corners: np.ndarray, paper: PaperName) -> np.ndarray:
    """Colours of the swatches in a photograph: float64 (72, 3). corners: of the sheet, from its upper left one on."""
    matrix = view(layout.marks(paper), corners)
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2) * layout.SWATCH * CORE
    points = (layout.swatches(paper)[:, None] + grid).reshape(-1, 2)
    values = sampled(pixels, moved(points, matrix)).reshape(-1, len(grid), 3)
    return np.asarray(np.median(values, 1))


class _File(BaseModel):
    """A map as it is kept."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    coefficients: list[list[float]] = Field(min_length=TERMS, max_length=TERMS)
    error: float = Field(ge=0)
    unmapped: float = Field(ge=0)


def read(file: Path) -> ColourMap:
    """A map that was kept as JSON. InputError if the file holds none."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error
    try:
        if len(content) > MOST_BYTES:
            raise ValueError("it is too long")
        kept = _File.model_validate_json(content)
        if any(len(row) != 3 for row in kept.coefficients):
            raise ValueError("each term has three coefficients")
    except (ValidationError, ValueError) as error:
        raise InputError(f"{file} holds no colour map", hint="`physical colours` writes one") from error
    return ColourMap(torch.tensor(kept.coefficients, dtype=torch.float32), kept.error, kept.unmapped)
