"""What a sound is not to have, however much it excites a feature by it. Constant loudness bounds its energy already."""

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.params import StudyParams

OF_SAMPLES = ("high_frequencies", "closeness")
"""the penalties on samples, which there are none of where log-mels are optimised"""


class RegularisationParams(StudyParams):
    """Weights of penalties, in standard deviations of a channel."""

    smoothness: float = Field(0.0, ge=0, description="of the mean difference between neighbours in the log-mels")
    high_frequencies: float = Field(0.0, ge=0, description="of the share of power above half the highest frequency")
    mean_spectrum: float = Field(0.0, ge=0, description="of the mean square distance of band means from those of data")
    closeness: float = Field(
        0.0, ge=0, description="of the mean square distance from the clip that it began with, relative to its power"
    )

    @property
    def of_mels(self) -> bool:
        """Whether any penalty looks at log-mels."""
        return self.smoothness > 0 or self.mean_spectrum > 0

    def of_log_mels(self, mels: Tensor, mean: Tensor) -> Tensor:
        """mels: (rows, bands, frames); mean: (bands,), of the data. Returns the penalty (rows,)."""
        penalty = mels.new_zeros(len(mels))
        if self.smoothness:
            penalty = penalty + self.smoothness * spectral_variation(mels)
        if self.mean_spectrum:
            penalty = penalty + self.mean_spectrum * (mels.mean(2) - mean).square().mean(1)
        return penalty

    def of_sounds(self, sounds: Tensor, clip: Tensor | None) -> Tensor:
        """sounds: (rows, samples); clip: the same, where they began, if it was a clip. Returns the penalty (rows,)."""
        penalty = sounds.new_zeros(len(sounds))
        if self.high_frequencies:
            penalty = penalty + self.high_frequencies * high_share(sounds)
        if self.closeness and clip is not None:
            distance = (sounds - clip).square().mean(1) / clip.square().mean(1)
            penalty = penalty + self.closeness * distance
        return penalty


def spectral_variation(mels: Tensor) -> Tensor:
    """Total variation in time and in frequency: the means of absolute differences of neighbours, added up. (rows,)"""
    in_time, in_frequency = mels.diff(dim=2).abs().mean((1, 2)), mels.diff(dim=1).abs().mean((1, 2))
    return in_time + in_frequency


def high_share(sounds: Tensor) -> Tensor:
    """The share of the power above half the highest frequency. sounds: (rows, samples). Returns (rows,)."""
    power = torch.view_as_real(torch.fft.rfft(sounds)).square().sum(2)
    return power[:, power.shape[1] // 2 :].sum(1) / power.sum(1).clamp(min=1e-12)
