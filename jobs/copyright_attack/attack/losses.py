"""What attacks on a fingerprint of peaks minimise, at the peaks of the original alone.

The losses of the paper are sums over peaks, so that all other places of a spectrogram need no maximum: gathering what
is around the peaks gives the value and the gradient of the whole map for a small part of its cost.

Source: Saadatpanah, Shafahi, Goldstein 2020, "Adversarial attacks on copyright detection systems", section 4.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from jobs.common.audio.fingerprints.peaks import SILENCE

FAINT = 1e-5
"""the magnitude at which the logarithm of magnitudes bends to zero"""


def log_magnitudes(magnitudes: Tensor) -> Tensor:
    """log(1 + magnitude / FAINT): differences are ratios of magnitudes, and silence is 0."""
    return torch.log1p(magnitudes / FAINT)


@dataclass(frozen=True)
class Places:
    """Peaks of a batch of maps, and what of the maps lies around them. Maps are (batch, frames, bins).

    owners: int64 (peaks,), the map of each peak. indices: int64 (peaks, around), in a flat batch of maps.
    outside: bool (peaks, around): beyond a border, where the index is any other. counts: float (batch,), peaks a map.
    """

    owners: Tensor
    indices: Tensor
    outside: Tensor
    counts: Tensor

    @classmethod
    def around(cls, peaks: Tensor, bins: int, frames: int = 0) -> Self:
        """The (2 frames + 1) (2 bins + 1) places around each peak, by frame. peaks: (batch, bins, frames)."""
        batch, height, width = peaks.shape
        owners, at_frame, at_bin = peaks.transpose(1, 2).nonzero().unbind(1)
        device = peaks.device
        rows = at_frame[:, None] + torch.arange(-frames, frames + 1, device=device)  # (peaks, rows)
        columns = at_bin[:, None] + torch.arange(-bins, bins + 1, device=device)
        outside = ((rows < 0) | (rows >= width))[:, :, None] | ((columns < 0) | (columns >= height))[:, None]
        flat = (owners[:, None] * width + rows.clamp(0, width - 1))[:, :, None] * height
        indices = flat + columns.clamp(0, height - 1)[:, None]
        counts = torch.bincount(owners, minlength=batch).float()
        return cls(owners, indices.flatten(1), outside.flatten(1), counts)

    def values(self, maps: Tensor) -> Tensor:
        """What lies around each peak: (peaks, around), -inf beyond a border. maps: (batch, frames, bins)."""
        return self._found(maps).masked_fill(self.outside, -torch.inf)

    def log_values(self, maps: Tensor) -> Tensor:
        """`log_magnitudes` of what lies around each peak, of nothing else: (peaks, around), -inf beyond a border."""
        return log_magnitudes(self._found(maps)).masked_fill(self.outside, -torch.inf)

    def _found(self, maps: Tensor) -> Tensor:
        return maps.reshape(-1).gather(0, self.indices.reshape(-1)).view(self.indices.shape)

    def means(self, values: Tensor) -> Tensor:
        """The mean over the peaks of each map: (peaks,) to (batch,). Of a map without peaks 0."""
        sums = values.new_zeros(len(self.counts)).index_add(0, self.owners, values)
        return sums / self.counts.clamp(min=1)


def smoothed_maximum(values: Tensor, alpha: float) -> Tensor:
    """sum x exp(alpha x) / sum exp(alpha x) along the last dimension: the mean for alpha 0, the maximum for infinity.

    values may be -inf, which counts as not there.
    """
    there = values > -torch.inf
    weights = (alpha * values).masked_fill(~there, -torch.inf).softmax(-1)
    return (weights * values.masked_fill(~there, 0)).sum(-1)


def ring(values: Tensor, inner: int, margin: float, alpha: float) -> Tensor:
    """How far each peak is from having moved into the ring around it: ReLU(margin - (outer maximum - inner maximum)).

    values: (peaks, 2 outer + 1) around each peak along frequency, outer > inner. Returns (peaks,): `margin` while the
    loudest place is within `inner` bins of the old peak, 0 once the ring outside is louder by `margin`.
    """
    return torch.relu(margin - _difference(values, inner, alpha))


def remix(values: Tensor, inner: int, margin: float, alpha: float) -> Tensor:
    """How far places are from being peaks: the loss of `ring` with the two maxima swapped.

    values: (peaks, 2 outer + 1) around the peaks of another song. The maximum of more is not less, so that its least
    value is `margin` at alpha infinity, and `margin` is taken off: 0 is best.
    """
    return torch.relu(margin + _difference(values, inner, alpha)) - margin


def _difference(values: Tensor, inner: int, alpha: float) -> Tensor:
    middle = values.shape[1] // 2
    near = values[:, middle - inner : middle + inner + 1]
    return smoothed_maximum(values, alpha) - smoothed_maximum(near, alpha)


def overlap(magnitudes: Tensor, common: Tensor) -> Tensor:
    """The magnitude of each peak that both sounds have, 0 of others: the paper's first loss.

    magnitudes: (peaks,), of the changed sound. common: bool (peaks,), whether the changed sound has the peak as well.
    """
    return magnitudes * common


def still_peaks(values: Tensor, floors: Tensor) -> Tensor:
    """Whether places are peaks of the maps: (peaks,).

    values: (peaks, around) in the rectangle of the fingerprint's neighbourhood. floors: (peaks,), the least magnitude.
    """
    centre = values[:, values.shape[1] // 2]
    return (centre >= values.amax(1)) & (centre > floors.clamp(min=SILENCE))
