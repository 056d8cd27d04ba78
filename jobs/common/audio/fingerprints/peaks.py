"""Peaks of a spectrogram: places that are the loudest of their neighbourhood.

Sources: Wang 2003, "An industrial-strength audio search algorithm" (peaks in time and frequency); Saadatpanah et al.
2020, section 3, who compare along frequency only: `frames` 0.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from jobs.common.params import StudyParams


class Neighbourhood(StudyParams):
    """The rectangle around a place in which a peak is the loudest."""

    bins: int = Field(5, ge=0, le=1000, description="that it reaches above and below")
    frames: int = Field(3, ge=0, le=1000, description="that it reaches before and after")


def peaks(magnitudes: Tensor, neighbourhood: Neighbourhood, floor: float) -> Tensor:
    """Places that equal the maximum of their neighbourhood, which the borders cut off, and are above the floor.

    magnitudes: (batch, bins, frames). floor: relative to the loudest place of each map. Returns bool of the same shape;
    of equal neighbours all are peaks, of silence none is. As a maximum filter of scipy says.
    """
    loudest = magnitudes.amax((1, 2), keepdim=True)
    highest = maximum_filter(magnitudes, neighbourhood)
    found: Tensor = (magnitudes == highest) & (magnitudes > (floor * loudest).clamp(min=SILENCE))
    return found


SILENCE = 1e-9  # a magnitude that is less than rounding of a sound of 24 bits


def maximum_filter(maps: Tensor, neighbourhood: Neighbourhood) -> Tensor:
    """The maximum of the neighbourhood of each place. maps: (batch, bins, frames)."""
    along_bins = _running_maximum(maps, neighbourhood.bins, 1)
    return _running_maximum(along_bins, neighbourhood.frames, 2)


def _running_maximum(maps: Tensor, reach: int, dimension: int) -> Tensor:
    """Over `reach` places on both sides along a dimension: maxima of 1, 2, 4, … places in a row, two of which cover it.

    Source: the doubling of van Herk 1992 and others; pooling of torch takes each window anew.
    """
    if not reach:
        return maps
    width = 2 * reach + 1
    padding = (0, 0, reach, reach) if dimension == 1 else (reach, reach)
    length = maps.shape[dimension]
    row, covered = functional.pad(maps, padding, value=-torch.inf), 1
    while 2 * covered <= width:
        row = torch.maximum(
            row.narrow(dimension, 0, row.shape[dimension] - covered),
            row.narrow(dimension, covered, row.shape[dimension] - covered),
        )
        covered *= 2
    return torch.maximum(row.narrow(dimension, 0, length), row.narrow(dimension, width - covered, length))
