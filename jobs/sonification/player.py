"""The player: a page of its own on which the channels of a network are heard, as tabs by depth.

The page is one file that asks nothing of any server. No sound on it is louder than `levels.RMS`, and the volume of the
page is limited as well.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import torch
from markupsafe import Markup
from torch import Tensor

from jobs.common.audio.files import wav
from jobs.common.audio.levels import at_loudness
from jobs.common.audio.mel import LogMel

BANDS = 64
RANGE = 70.0  # dB below the loudest point that are shown
MOST_CURVE = 500  # points


@dataclass(frozen=True)
class Tab:
    """One channel of a layer."""

    layer: str
    channel: str
    """in a sentence"""
    short: str
    """on its tab"""
    sound: Tensor
    """(samples,): what excites it"""
    curve: Tensor
    """(frames,): its activation by that sound"""
    facts: Mapping[str, str]
    """what else is shown, by name"""
    clip: Tensor | None = None
    """(samples,): the clip of the data that excites it most"""


def player(title: str, rate: int, tabs: Sequence[Tab], about: Sequence[str] = ()) -> str:
    """The page. rate: samples a second of all sounds; about: sentences below the title.

    Layers are shown in the order of the tabs. tabs: at least one.
    """
    layers = list(dict.fromkeys(tab.layer for tab in tabs))
    data = {"layers": layers, "tabs": [_content(tab, rate) for tab in tabs]}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no end of the script element
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    template = environment.from_string((resources.files("jobs.sonification") / "player.html").read_text("utf-8"))
    return template.render(title=title, about=about, data=Markup(text))


def _content(tab: Tab, rate: int) -> dict[str, Any]:
    points = tab.curve[:: -(-len(tab.curve) // MOST_CURVE)]
    return {
        "layer": tab.layer,
        "channel": tab.channel,
        "short": tab.short,
        "seconds": len(tab.sound) / rate,
        "sound": _encoded(at_loudness(tab.sound), rate),
        "clip": None if tab.clip is None else _encoded(at_loudness(tab.clip), rate),
        "spectrogram": _spectrogram(tab.sound, rate),
        "curve": [float(f"{value:.4g}") for value in points.tolist()],
        "facts": list(tab.facts.items()),
    }


def _encoded(sound: Tensor, rate: int) -> str:
    return base64.b64encode(wav(sound, rate)).decode()


def _spectrogram(sound: Tensor, rate: int) -> dict[str, Any]:
    """Bytes, band by band from the lowest: 255 is the loudest point, 0 is RANGE below it."""
    window, hop = round(rate / 40), round(rate / 100)
    size = 2 ** (2 * window - 1).bit_length()
    transform = LogMel(rate, BANDS, size, window, hop)
    decibels = transform(sound[None])[0] * (10 / torch.log(torch.tensor(10.0)))  # (bands, frames)
    scaled = 255 * (1 + (decibels - decibels.max()) / RANGE).clamp(0, 1)
    values = base64.b64encode(scaled.round().to(torch.uint8).contiguous().numpy().tobytes()).decode()
    return {"bands": BANDS, "frames": scaled.shape[1], "values": values}
