"""The tabs of the player: every sound with its curve, its place in the layer, and what is nearest to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.audio.resampling import resampled
from jobs.common.data.sounds.base import SoundSet
from jobs.common.data.sounds.phonemes import Phoneme
from jobs.sonification.player import Tab
from jobs.sonification.responses import Responses
from jobs.sonification.results import beside_drawn, nearest_clip
from jobs.sonification.sonification import Sonification

NAMES = {
    "moonshine_words": "words by Moonshine",
    "sphinx_words": "words by Sphinx",
    "pitch_hertz": "pitch by CREPE, hertz",
    "repeats_hertz": "repeats itself, times a second",
    "repeats": "and is like itself a period later, 1: exactly",
    "voiced_share": "share of frames with a pitch",
    "voice_like_clip": "voice like the nearest clip's, cosine",
    "quality_overall": "quality by DNSMOS, 1 to 5",
}


def tabs(
    sonifications: Sequence[Sonification],
    network: SoundNetwork,
    responses: Mapping[str, Responses],
    clips: SoundSet,
    near: Sequence[str],
    verdicts: Sequence[Mapping[str, Any]],
    unit: str,
) -> list[Tab]:
    """In the order of depth. clips: that the responses are to. near: the phoneme nearest to each sound, or nothing.

    verdicts: of judges about each sound, or nothing. unit: of the objective.
    """
    order = {layer: place for place, layer in enumerate(network.layers)}
    made = []
    for place, each in enumerate(sonifications):
        known = responses[each.feature.layer]
        nearest, cosine = nearest_clip(each.activations, known)
        best = int(known.means[:, each.feature.number].argmax()) if each.rank is not None else nearest
        facts = {f"activation, in {unit}": f"{each.final:z.1f} ({each.start:z.1f} at the start)"}
        if each.rank is not None:
            facts["place among the layer's channels"] = f"{each.rank} of {each.rivals}"
            if len(each.drawn) > 1:
                facts[f"{len(each.drawn)} random channels of the layer"] = _of_random(each)
        if each.rank is not None and network.classes and known.layer == network.layers[-1]:
            facts["class"] = network.classes[each.feature.number]
        facts["nearest clip, by the whole layer"] = f"{clips.names[nearest]} (cosine {cosine:.2f})"
        facts["clip that excites it most"] = clips.names[best]
        if near:
            facts["nearest phoneme"] = near[place]
        if verdicts:
            shown = ((label, verdicts[place].get(column)) for column, label in NAMES.items())
            facts |= {
                label: f"{value:.2f}" if isinstance(value, float) else str(value or "none")
                for label, value in shown
                if value is not None
            }
        number = str(each.feature.number) if each.rank is not None else "all"
        short = number + (f"·{each.copy + 1}" if each.copy else "")
        made.append(
            Tab(
                known.layer,
                each.feature.name if not each.feature.name.isdigit() else f"channel {number}",
                short,
                each.sound,
                curve_of(each, network, known),
                facts,
                clips.sounds(torch.tensor([best]))[0],
            )
        )
    return sorted(made, key=lambda tab: order[tab.layer])


def _of_random(sonification: Sonification) -> str:
    """How the feature compares with random ones of its layer."""
    row = beside_drawn(sonification)
    mean, low, high = (row[f"random_{name}"] for name in ("mean", "low", "high"))
    return f"{mean:z.1f} in the mean (95 %: {low:z.1f} to {high:z.1f}); the place among them: {row['random_place']}"


def curve_of(sonification: Sonification, network: SoundNetwork, known: Responses) -> Tensor:
    """The activation of the feature over time, in standard deviations: (frames,); of a whole layer its mean square."""
    with torch.no_grad():
        answers = network.activations(sonification.sound[None], [known.layer])[known.layer][0]  # (channels, frames)
    answers = (answers - known.mean[:, None]) / known.spread[:, None]
    return answers.square().mean(0) if sonification.rank is None else answers[sonification.feature.number]


def nearest_phonemes(
    sonifications: Sequence[Sonification],
    network: SoundNetwork,
    responses: Mapping[str, Responses],
    spoken: Sequence[Phoneme],
) -> list[str]:
    """By sound: the phoneme that its layer answers to most alike, with the cosine of both answers."""
    answers = answers_to_phonemes(network, list(dict.fromkeys(each.feature.layer for each in sonifications)), spoken)
    near = []
    for each in sonifications:
        known = responses[each.feature.layer]
        standardised = (answers[known.layer] - known.mean) / known.spread
        cosines = torch.nn.functional.cosine_similarity(standardised, each.activations[None], dim=1)
        best = int(cosines.argmax())
        near.append(f"{spoken[best].name} (cosine {float(cosines[best]):.2f})")
    return near


def answers_to_phonemes(network: SoundNetwork, layers: Sequence[str], spoken: Sequence[Phoneme]) -> dict[str, Tensor]:
    """Means over time, (phonemes, channels), by layer. A phoneme that is too short for the network is repeated."""
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for each in spoken:
        sound = resampled(each.sound, each.rate, network.rate)
        sound = sound.repeat(max(1, -(-network.shortest // len(sound))))
        with torch.no_grad():
            for layer, answer in network.activations(sound[None], layers).items():
                rows[layer].append(answer[0].mean(1))
    return {layer: torch.stack(each) for layer, each in rows.items()}
