"""Pairs of peaks as hashes: what a database of songs is searched by.

Source: Wang 2003, section 2.2: an anchor, the peaks of a target zone after it, and for each pair the two
frequencies and the time between them.
"""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jobs.common.params import StudyParams
from service.errors import FieldError

BINS = 1 << 14
"""one more than the highest bin of a hash"""
STEPS = 1 << 12
"""one more than the longest time of a hash, in frames"""
CHUNK = 512  # anchors whose targets are looked for at a time


class Pairing(StudyParams):
    """Which peaks make a pair."""

    fan_out: int = Field(5, ge=1, le=100, description="pairs of an anchor at most, the nearest in time first")
    bins: int = Field(60, ge=1, le=BINS - 1, description="the most that the two are apart in frequency, in bins")
    shortest: int = Field(1, ge=1, le=STEPS - 1, description="the least frames from an anchor to its target")
    longest: int = Field(60, ge=1, le=STEPS - 1, description="the most frames from an anchor to its target")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.longest < self.shortest:
            raise FieldError("longest", f"be at least shortest, {self.shortest}", self.longest)
        return self


def landmarks(peaks: Tensor, pairing: Pairing) -> tuple[Tensor, Tensor]:
    """The hashes of all pairs of a map of peaks and the frames of their anchors.

    peaks: bool (bins, frames). Returns int64 (count,), (f1 * BINS + f2) * STEPS + dt, and int64 (count,), by the time
    of the anchor. Of targets at the same time the lowest frequency comes first.
    """
    places = peaks.T.nonzero()  # (peaks, 2): frame and bin, by frame
    frames, bins = places[:, 0].contiguous(), places[:, 1]
    hashes, times = [], []
    for first in range(0, len(frames), CHUNK):
        anchors = slice(first, min(first + CHUNK, len(frames)))
        last = int(torch.searchsorted(frames, frames[anchors][-1] + pairing.longest, right=True))
        targets = slice(first, last)  # of a chunk; they are sorted by time
        waits = frames[targets] - frames[anchors, None]  # (anchors, targets)
        distances = (bins[targets] - bins[anchors, None]).abs()
        valid = (waits >= pairing.shortest) & (waits <= pairing.longest) & (distances <= pairing.bins)
        anchor, target = (valid & (valid.cumsum(1) <= pairing.fan_out)).nonzero().unbind(1)
        low, high = bins[anchors][anchor], bins[targets][target]
        hashes.append((low * BINS + high) * STEPS + waits[anchor, target])
        times.append(frames[anchors][anchor])
    if not hashes:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return torch.cat(hashes), torch.cat(times)
