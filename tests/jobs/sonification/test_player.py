"""The player: one file, and nothing on it is loud."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
import torch

from jobs.common.audio.levels import RMS
from jobs.sonification.player import Tab, player

RATE = 8000
LOUD = torch.randn(RATE, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 100, RATE)


def content(*tabs: Tab) -> dict:
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', player("t", RATE, tabs), re.S)
    assert text
    return json.loads(text[1])


def tab(layer: str, sound: torch.Tensor = LOUD) -> Tab:
    return Tab(layer, "channel 0", "0", sound, torch.arange(1600.0), {"a": "b"}, sound / 1e6)


def test_sounds_are_of_one_loudness() -> None:
    (shown,) = content(tab("conv1"))["tabs"]
    for key in ("sound", "clip"):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(shown[key])))
        assert rate == RATE and len(samples) == RATE
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(RMS, rel=0.02) and np.abs(samples).max() < 0.9


def test_layers_are_in_the_order_of_the_tabs() -> None:
    data = content(tab("conv1"), tab("conv2"), tab("conv1"))
    assert data["layers"] == ["conv1", "conv2"] and len(data["tabs"]) == 3


def test_pictures_have_bounded_sizes() -> None:
    (shown,) = content(tab("conv1"))["tabs"]
    assert len(shown["curve"]) == 400 and shown["curve"][1] == 4.0
    values = base64.b64decode(shown["spectrogram"]["values"])
    assert len(values) == shown["spectrogram"]["bands"] * shown["spectrogram"]["frames"] and max(values) == 255
