"""A sound as a picture: its log-mel spectrogram."""

import io
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BANDS = 80  # mel bands
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.01
MOST_FRAMES = 2000  # a longer sound has longer hops: the picture has no more columns
TICKS = (100, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
FLOOR = 80.0  # decibels below the loudest point that are still shown


def log_mel(samples: np.ndarray, rate: int) -> tuple[np.ndarray, float]:
    """The log-mel spectrogram and the seconds between two of its columns.

    samples: float (n,) in [-1, 1]; rate: samples a second. Returns decibels relative to the loudest point, in
    [-FLOOR, 0], float32 (bands, frames). A sound shorter than a window is followed by silence.
    """
    import torch  # only reports with sounds need these
    import torchaudio

    hop = max(1, round(HOP_SECONDS * rate), math.ceil(len(samples) / MOST_FRAMES))
    spectrum = torchaudio.transforms.Spectrogram(_size(rate), win_length=_window(rate), hop_length=hop)
    samples = np.pad(samples, (0, max(0, _size(rate) - len(samples))))
    power = spectrum(torch.from_numpy(np.ascontiguousarray(samples)).float())  # (frequencies, frames)
    decibels = 10 * torch.log10((_filters(rate).T @ power).clamp(min=1e-12))
    return (decibels - decibels.max()).clamp(min=-FLOOR).numpy(), hop / rate


def spectrogram_png(samples: np.ndarray, rate: int) -> bytes:
    """The spectrogram as a PNG: time in seconds against mel bands, named by their frequency in Hz."""
    from matplotlib.figure import Figure

    values, seconds = log_mel(samples, rate)
    bands, frames = values.shape
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="magma", extent=(0, frames * seconds, 0, bands))
    ticks = [hertz for hertz in TICKS if hertz < rate / 2]
    axes.set_yticks([band_of(hertz, rate) + 0.5 for hertz in ticks], [f"{hertz:,}" for hertz in ticks])
    axes.set_xlabel("seconds")
    axes.set_ylabel("Hz")
    figure.colorbar(image, label="dB")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def band_of(hertz: float, rate: int) -> float:
    """The mel band that a frequency falls into, between two of them a fraction; 0 is the lowest."""
    filters = _filters(rate)
    weights = filters[round(2 * hertz / rate * (len(filters) - 1))].tolist()
    return float(sum(band * weight for band, weight in enumerate(weights)) / max(sum(weights), 1e-12))


def _filters(rate: int) -> "Tensor":
    """What of each frequency goes into each band: float32 (frequencies, bands)."""
    import torchaudio

    bands = min(BANDS, _size(rate) // 16)
    filters: Tensor = torchaudio.functional.melscale_fbanks(
        _size(rate) // 2 + 1, 0.0, rate / 2, bands, rate, norm="slaney", mel_scale="slaney"
    )
    return filters


def _window(rate: int) -> int:
    return max(32, round(WINDOW_SECONDS * rate))


def _size(rate: int) -> int:
    """Points of a Fourier transform: a power of two that holds a window twice."""
    return int(2 ** math.ceil(math.log2(2 * _window(rate))))
