"""How much a sound may be changed: in every sample, in a norm, or as far as the sound itself hides it.

Each bound has a size `epsilon`, and brings a change back to where it is allowed.
"""

from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.params import StudyParams
from jobs.copyright_attack.attack.masking import analysed, bands_of, composed, thresholds


class Limit(Protocol):
    """A bound around a batch of originals."""

    scale: Tensor
    """(batch, 1): about how large a change may be in a sample: the unit of steps"""

    def project(self, changes: Tensor) -> Tensor:
        """Changes (batch, samples), brought within the bound."""


class LinfBound(StudyParams):
    """No sample changes by more than epsilon, in units of full scale."""

    kind: Literal["linf"] = Field("linf", description="the largest change of a sample")

    def around(self, originals: Tensor, rate: int, epsilon: float) -> Limit:
        return _Linf(epsilon, torch.full_like(originals[:, :1], epsilon))


class LpBound(StudyParams):
    """(mean |change|^p)^(1/p) is at most epsilon, in units of full scale: for p 2 the root mean square."""

    kind: Literal["lp"] = Field("lp", description="the p-norm of the change, as a mean over samples")
    p: float = Field(2.0, ge=1, le=100, description="of the norm")

    def around(self, originals: Tensor, rate: int, epsilon: float) -> Limit:
        return _Lp(self.p, epsilon, torch.full_like(originals[:, :1], epsilon))


class MaskingBound(StudyParams):
    """In every critical band and frame the change is at most epsilon times what the original hides, as an amplitude.

    1 is as loud as the threshold of Johnston 1988. Source of the bound: Schoenherr et al. 2018; Qin et al. 2019.
    """

    kind: Literal["masking"] = Field("masking", description="what the sound hides, by band and frame")

    def around(self, originals: Tensor, rate: int, epsilon: float) -> Limit:
        return _Masking(originals, rate, epsilon)


AnyBound = Annotated[LinfBound | LpBound | MaskingBound, Field(discriminator="kind")]


class _Linf:
    def __init__(self, epsilon: float, scale: Tensor) -> None:
        self.epsilon, self.scale = epsilon, scale

    def project(self, changes: Tensor) -> Tensor:
        return changes.clamp(-self.epsilon, self.epsilon)


class _Lp:
    """Longer changes are shortened to the sphere: the nearest change for p 2, a shorter one for others."""

    def __init__(self, p: float, epsilon: float, scale: Tensor) -> None:
        self.p, self.epsilon, self.scale = p, epsilon, scale

    def project(self, changes: Tensor) -> Tensor:
        return changes * (self.epsilon / power_mean(changes, self.p).clamp(min=1e-12)).clamp(max=1)


def power_mean(changes: Tensor, p: float) -> Tensor:
    """(mean |change|^p)^(1/p) of each: (batch, samples) to (batch, 1)."""
    largest = changes.abs().amax(1, keepdim=True).clamp(min=1e-12)  # keeps powers within what floats hold
    return largest * (changes.abs() / largest).pow(p).mean(1, keepdim=True).pow(1 / p)


class _Masking:
    """Spectra are scaled band by band, then composed again. Frames overlap, so that a composed change may be above the
    limit by a little: PASSES of it bring it near.
    """

    PASSES = 2

    def __init__(self, originals: Tensor, rate: int, epsilon: float) -> None:
        spectra = analysed(originals)
        self.bands = bands_of(spectra.shape[-1], rate)
        self.limits = epsilon**2 * thresholds(spectra.abs().square(), rate)  # (batch, frames, bands)
        # of noise with this power in every band: power of full scale is 0.5, of the spectrum SINE
        self.scale = (self.limits.sum(2).mean(1, keepdim=True) * 2).sqrt()

    def project(self, changes: Tensor) -> Tensor:
        for _ in range(self.PASSES):
            spectra = analysed(changes)
            powers = self.bands.powers(spectra.abs().square())
            gains = (self.limits / powers.clamp(min=1e-30)).sqrt().clamp(max=1)
            changes = composed(spectra * self.bands.spread(gains), changes.shape[1])
        return changes
