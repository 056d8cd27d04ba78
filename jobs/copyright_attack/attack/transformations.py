"""What may happen to a sound before it is compared: random, differentiable changes that an attack is to survive.

Source: Athalye et al. 2018, "Synthesizing robust adversarial examples": the expectation over transformations.
"""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jobs.common.audio.transformations import moved
from jobs.common.params import StudyParams
from jobs.copyright_attack.attack.coding import coded
from service.errors import FieldError


class TransformationParams(StudyParams):
    """Random changes, drawn anew at each step. What is left at 0 is not done."""

    draws: int = Field(1, ge=1, le=64, description="draws of each step, whose losses are averaged")
    gain: float = Field(0.3, ge=0, lt=1, description="the most that loudness changes, as a share")
    shift: float = Field(0.05, ge=0, le=10, description="the most that a sound is moved in time, in seconds; it wraps")
    crop: float = Field(0.0, ge=0, lt=0.9, description="the most that is cut off, as a share, at any place")
    resampling: float = Field(
        0.0, ge=0, le=0.2, description="the most that speed and pitch change, as a share, by playing at another rate"
    )
    coding: float = Field(0.5, ge=0, le=1, description="the share of draws that go through a lossy coder")
    cutoff: tuple[float, float] = Field(
        (3500.0, 16_000.0), description="hertz that the coder keeps, drawn from this range"
    )
    noise: tuple[float, float] = Field(
        (0.1, 2.0), description="amplitude of the coder's noise relative to the masking threshold, from this range"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.cutoff
        if not 0 < low <= high:
            raise FieldError("cutoff", "go from above 0 up", self.cutoff)
        faint, loud = self.noise
        if not 0 <= faint <= loud:
            raise FieldError("noise", "go from 0 or more up", self.noise)
        return self

    def drawn(self, samples: int, rate: int, generator: torch.Generator) -> "Drawn":
        """One draw for sounds of so many samples. generator: on the CPU."""
        gain, place, share, speed, coding, cutoff, noise = torch.rand(
            7, generator=generator, dtype=torch.float64
        ).tolist()
        low, high = self.cutoff
        faint, loud = self.noise
        length = round(samples * (1 - share * self.crop))
        return Drawn(
            rate=rate,
            gain=1 + self.gain * (2 * gain - 1),
            first=round(place * (samples - length)),
            length=length,
            seed=int(torch.randint(2**62, (1,), generator=generator)),
            shift=round(self.shift * rate),
            speed=self.resampling * speed,
            coding=(low + (high - low) * cutoff, faint + (loud - faint) * noise) if coding < self.coding else None,
        )


class Drawn:
    """One draw: the same change to whatever sounds it is given, so that an original and what was made of it agree."""

    def __init__(
        self,
        *,
        rate: int,
        gain: float,
        first: int,
        length: int,
        seed: int,
        shift: int,
        speed: float,
        coding: tuple[float, float] | None,
    ) -> None:
        self.rate, self.gain, self.first, self.length = rate, gain, first, length
        self.seed, self.shift, self.speed, self.coding = seed, shift, speed, coding

    def __call__(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, samples). Returns (batch, length)."""
        if self.shift or self.speed:
            sounds = moved(sounds, self.shift, self.speed, torch.Generator().manual_seed(self.seed))
        sounds = sounds[:, self.first : self.first + self.length]
        if self.coding is not None:
            sounds = coded(sounds, self.rate, *self.coding)
        return sounds * self.gain
