"""A fingerprint of a sound: peaks of its spectrograms at several resolutions, and hashes of pairs of them.

Its network is differentiable up to the magnitudes at the peaks, which is what attacks need.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import torch
from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import to_json
from torch import Tensor, nn

from jobs.common.audio.fingerprints.pairs import BINS, STEPS, Pairing, landmarks
from jobs.common.audio.fingerprints.peaks import Neighbourhood, peaks
from jobs.common.audio.fingerprints.spectrum import Resolution, magnitudes
from jobs.common.params import ONCE, StudyParams
from service.errors import FieldError

PER_RESOLUTION = BINS * BINS * STEPS
"""hashes of a resolution: those of the next one begin there"""


class FingerprintParams(StudyParams):
    """What a fingerprint is made of."""

    rate: int = Field(11_025, ge=4_000, le=48_000, description="samples a second of the sounds that it takes")
    resolutions: Annotated[tuple[Resolution, ...], ONCE] = Field(
        (Resolution(samples=1024, hop=512), Resolution(samples=512, hop=256)),
        min_length=1,
        max_length=8,
        description="spectrograms whose peaks it has, each for itself",
    )
    neighbourhood: Neighbourhood = Field(Neighbourhood(), description="in which a peak is the loudest place")
    floor: float = Field(
        1e-3, ge=0, lt=1, description="magnitude of the faintest peak, relative to the loudest of the sound"
    )
    pairing: Pairing = Field(Pairing(), description="which peaks make a hash")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        finest = min(resolution.hop for resolution in self.resolutions)
        for resolution in self.resolutions:
            if resolution.hop % finest:
                raise FieldError("resolutions", f"have hops that are multiples of the least, {finest}", resolution.hop)
        return self

    def build(self) -> "Fingerprint":
        return Fingerprint(self)


class Fingerprint(nn.Module):
    """It has no weights. params: see FingerprintParams."""

    def __init__(self, params: FingerprintParams | None = None) -> None:
        super().__init__()
        self.params = params or FingerprintParams()

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """As `arguments` says, e.g. from the card of a model. ValidationError of pydantic if they are not in bounds."""
        return cls(TypeAdapter(FingerprintParams).validate_json(to_json(arguments)))

    @property
    def arguments(self) -> dict[str, Any]:
        """What it is made of, as JSON can hold it."""
        plain: dict[str, Any] = self.params.model_dump(mode="json")
        return plain

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.params.rate

    @property
    def resolutions(self) -> tuple[Resolution, ...]:
        return self.params.resolutions

    @property
    def hop(self) -> int:
        """Samples from one time of a hash to the next: the least hop of all resolutions."""
        return min(resolution.hop for resolution in self.resolutions)

    @property
    def shortest(self) -> int:
        """Samples that a sound must have at least: a frame of the coarsest resolution."""
        return max(resolution.samples for resolution in self.resolutions)

    def magnitudes(self, sounds: Tensor) -> tuple[Tensor, ...]:
        """The spectrogram at each resolution: sounds (batch, samples) to (batch, bins, frames) each."""
        return tuple(magnitudes(sounds, resolution) for resolution in self.resolutions)

    def peaks(self, sounds: Tensor) -> tuple[Tensor, ...]:
        """The peaks at each resolution: bool (batch, bins, frames) each."""
        with torch.no_grad():
            return tuple(
                peaks(each, self.params.neighbourhood, self.params.floor) for each in self.magnitudes(sounds.detach())
            )

    def forward(self, sounds: Tensor) -> tuple[Tensor, ...]:
        """Its peaks."""
        return self.peaks(sounds)

    def hashes(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Hashes of a sound (samples,) and their times in units of `hop` samples: int64 (count,) each, by hash.

        FieldError if it is shorter than a frame.
        """
        hashes, times = [], []
        for number, (resolution, each) in enumerate(zip(self.resolutions, self.peaks(sound[None]), strict=True)):
            packed, frames = landmarks(each[0], self.params.pairing)
            hashes.append(packed + number * PER_RESOLUTION)
            times.append(frames * (resolution.hop // self.hop))
        joined, order = torch.cat(hashes).sort(stable=True)
        return joined, torch.cat(times)[order]
