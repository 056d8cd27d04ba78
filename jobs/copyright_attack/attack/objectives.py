"""The losses of attacks as a spec names them, prepared for fingerprints and originals."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jobs.common.audio.fingerprints.fingerprint import Fingerprint
from jobs.common.audio.fingerprints.spectrum import Resolution, frame_magnitudes
from jobs.common.audio.resampling import resampled
from jobs.common.params import StudyParams
from jobs.copyright_attack.attack.losses import Places, log_magnitudes, overlap, remix, ring, still_peaks
from service.errors import FieldError

Loss = Callable[[Tensor], Tensor]
"""changed sounds (batch, samples), as the originals are, to losses (batch,), the mean over peaks"""
LossOfMaps = Callable[[Tensor], Tensor]
"""log-magnitudes or magnitudes (batch, frames, bins) to losses (batch,)"""


class OverlapObjective(StudyParams):
    """The magnitude of the peaks that the fingerprints of both sounds have."""

    kind: Literal["overlap"] = Field("overlap", description="the magnitude of the peaks that both sounds have")

    def prepared(self, fingerprint: Fingerprint, peaks: Tensor, targets: Tensor | None) -> LossOfMaps:
        around, floor = fingerprint.params.neighbourhood, fingerprint.params.floor
        places = Places.around(peaks, around.bins, around.frames)
        middle = places.indices.shape[1] // 2

        def loss(maps: Tensor) -> Tensor:
            values = places.values(maps.detach())
            floors = floor * maps.detach().amax((1, 2))[places.owners]
            at_peaks = maps.reshape(-1).gather(0, places.indices[:, middle])
            return places.means(overlap(log_magnitudes(at_peaks), still_peaks(values, floors)))

        return loss


class _Ring(StudyParams):
    """A ring of frequencies around each peak."""

    outer: int = Field(12, ge=1, le=1000, description="bins from a peak to the outer edge of its ring")
    inner: int = Field(3, ge=0, le=999, description="bins from a peak to the inner edge of its ring")
    margin: float = Field(
        1.0, ge=0, le=20, description="by how much the ring has to be louder, in natural logarithms of magnitude"
    )
    alpha: float = Field(1.0, ge=0, le=100, description="of the smoothed maximum; larger: nearer to the maximum")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.inner >= self.outer:
            raise FieldError("inner", f"be below outer, {self.outer}", self.inner)
        return self

    def away(self, peaks: Tensor) -> LossOfMaps:
        """The ring loss around peaks (batch, bins, frames)."""
        places = Places.around(peaks, self.outer)

        def loss(maps: Tensor) -> Tensor:
            return places.means(ring(places.log_values(maps), self.inner, self.margin, self.alpha))

        return loss


class RingObjective(_Ring):
    """The loss that the paper calls the default: the loudest place around a peak moves into a ring of frequencies."""

    kind: Literal["ring"] = Field("ring", description="peaks move into a ring of frequencies around them")

    def prepared(self, fingerprint: Fingerprint, peaks: Tensor, targets: Tensor | None) -> LossOfMaps:
        return self.away(peaks)


class RemixObjective(_Ring):
    """The ring loss, and weight times the loss that makes peaks where another song has them."""

    kind: Literal["remix"] = Field("remix", description="the ring loss, and peaks where another song has them")
    weight: float = Field(1.0, ge=0, le=1000, description="of the loss toward the other song")

    def prepared(self, fingerprint: Fingerprint, peaks: Tensor, targets: Tensor | None) -> LossOfMaps:
        assert targets is not None, "remix needs another song"
        away = self.away(peaks)
        places = Places.around(targets, self.outer)

        def loss(maps: Tensor) -> Tensor:
            toward = remix(places.log_values(maps), self.inner, self.margin, self.alpha)
            return away(maps) + self.weight * places.means(toward)

        return loss


AnyObjective = Annotated[OverlapObjective | RingObjective | RemixObjective, Field(discriminator="kind")]


class AttackedFingerprint:
    """The loss of one fingerprint around a batch of originals: what of them is a peak is found once."""

    def __init__(
        self,
        objective: AnyObjective,
        fingerprint: Fingerprint,
        originals: Tensor,
        rate: int,
        targets: Tensor | None = None,
    ) -> None:
        """originals, targets: (batch, samples) at `rate` a second. targets: songs to move toward, for remix."""
        self.fingerprint, self.rate = fingerprint, rate
        at_peaks = fingerprint.peaks(resampled(originals, rate, fingerprint.rate))
        toward: Sequence[Tensor | None] = [None] * len(at_peaks)
        if targets is not None:
            toward = fingerprint.peaks(resampled(targets, rate, fingerprint.rate))
        self._losses: list[tuple[Resolution, LossOfMaps]] = [
            (resolution, objective.prepared(fingerprint, at_peaks[number], toward[number]))
            for number, resolution in enumerate(fingerprint.resolutions)
        ]

    def __call__(self, changed: Tensor) -> Tensor:
        """The mean of its resolutions: (batch, samples) to (batch,)."""
        sounds = resampled(changed, self.rate, self.fingerprint.rate)
        each = [loss(frame_magnitudes(sounds, resolution)) for resolution, loss in self._losses]
        return torch.stack(each).mean(0)


def prepared(
    objective: AnyObjective,
    fingerprints: Sequence[Fingerprint],
    originals: Tensor,
    rate: int,
    targets: Tensor | None = None,
) -> Loss:
    """The mean loss of an ensemble of fingerprints."""
    members = [AttackedFingerprint(objective, each, originals, rate, targets) for each in fingerprints]

    def loss(changed: Tensor) -> Tensor:
        return torch.stack([member(changed) for member in members]).mean(0)

    return loss


def survival(fingerprint: Fingerprint, originals: Tensor, changed: Tensor, rate: int) -> Tensor:
    """The share of the originals' peaks that the changed sounds have as well: (batch,). NaN of one without peaks."""
    common, count = torch.zeros(len(originals)), torch.zeros(len(originals))
    before = fingerprint.peaks(resampled(originals, rate, fingerprint.rate))
    after = fingerprint.peaks(resampled(changed, rate, fingerprint.rate))
    for one, other in zip(before, after, strict=True):
        common += (one & other).sum((1, 2)).cpu()
        count += one.sum((1, 2)).cpu()
    return common / count
