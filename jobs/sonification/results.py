"""What a run keeps of its results: tables, sounds, pictures and metrics."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.audio.mel import LogMel
from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.data.sounds.base import SoundSet
from jobs.common.metrics.intervals import mean_interval
from jobs.sonification import figures
from jobs.sonification.inversion import Inverted, rows_of
from jobs.sonification.optimisation.edges import Inside
from jobs.sonification.responses import Responses
from jobs.sonification.sonification import Feature, Sonification
from service.run import Run


def keep_layers(
    network: SoundNetwork, responses: Mapping[str, Responses], fields: Mapping[str, Inside], run: Run
) -> None:
    """What layers there are, by name. fields: what their frames see."""
    rows = [
        {
            "layer": layer,
            "channels": known.channels,
            "dead": int(known.dead.sum()),
            "sees_seconds": fields[layer].field / network.rate,
        }
        for layer, known in responses.items()
    ]
    run.table("layers", rows, title="The layers of the network, and how much sound a frame of them sees")


def keep_sonification(
    name: str,
    unit: str,
    features: Sequence[Feature],
    sonifications: Sequence[Sonification],
    responses: Mapping[str, Responses],
    clips: SoundSet,
    network: SoundNetwork,
    mel: LogMel,
    run: Run,
) -> None:
    """A table, the sounds, and a picture of them. unit: of the objective. clips: that the responses are to."""
    rows = [_row(each, responses[each.feature.layer], clips, network) for each in sonifications]
    rows += [_dead_row(each) for each in features if each.dead]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    rows = [{column: row.get(column) for column in columns} for row in rows]
    order = {layer: place for place, layer in enumerate(network.layers)}
    rows.sort(key=lambda row: (order[row["layer"]], row["number"], row["copy"]))
    run.table(name, rows, title=f"What was made audible ({name}): activations in {unit}")
    for each in sonifications:
        label = f"{each.feature.layer}, {each.feature.name}"
        copy = f", copy {each.copy + 1}" if each.copy else ""
        place = "" if each.rank is None else f", rank {each.rank} of {each.rivals}"
        file = f"{name}-{each.feature.layer}-{each.feature.number}" + (f"-{each.copy + 1}" if each.copy else "")
        run.audio(file, each.sound.numpy(), network.rate, title=f"{label}{copy}: {each.final:.2f}{place}")
    if sonifications:
        pictures = [
            figures.Picture(each.feature.layer, _caption(each), _mels(mel, each.sound)) for each in sonifications
        ]
        run.figure(
            name, figures.sounds(pictures, mel), title=f"What was made audible ({name}), as log-mel spectrograms"
        )
        curves = [figures.Curve(each.feature.layer, each.curve.numpy()) for each in sonifications]
        run.figure(f"{name}_ascent", figures.ascent(curves), title=f"The objective while sounds are optimised ({name})")


def keep_examples(
    name: str,
    sonifications: Sequence[Sonification],
    responses: Mapping[str, Responses],
    clips: SoundSet,
    count: int,
    run: Run,
) -> None:
    """The real clips that excite the same features most, in their mean over time; the first one as a sound."""
    rows, features = [], dict.fromkeys((each.feature.layer, each.feature.number) for each in sonifications)
    for layer, number in features:
        means = responses[layer].standardised[:, number]
        best = means.topk(min(count, len(means)))
        for place, (clip, value) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
            label = clips.classes[int(clips.labels[clip])]
            rows.append(
                {
                    "layer": layer,
                    "number": number,
                    "place": place + 1,
                    "clip": clips.names[clip],
                    "class": label,
                    "activation": value,
                }
            )
            if not place:
                sound = clips.sounds(torch.tensor([clip]))[0].numpy()
                title = f"{layer}, {number}: the real clip that excites it most, {clips.names[clip]}"
                run.audio(f"{name}-{layer}-{number}-example", sound, clips.rate, title=title)
    if rows:
        run.table(f"{name}_examples", rows, title=f"The real clips that excite these channels most ({name})")


def keep_inversions(
    inverted: Sequence[Inverted], start: str, clips: SoundSet, network: SoundNetwork, mel: LogMel, run: Run
) -> list[dict[str, Any]]:
    """A table, the sounds beside those that they are to resemble, and a picture of those from one start.

    clips: those that were inverted.
    """
    rows = rows_of(inverted, clips, network.classes)
    run.table(
        "inversions", rows, title="What layers keep of clips: errors relative to the clip, 1 is as far as silence"
    )
    sounds = clips.sounds(torch.arange(len(clips)))
    for place, name in enumerate(clips.names):
        run.audio(f"clip-{place}", sounds[place].numpy(), clips.rate, title=f"The clip: {name}")
    for each in inverted:
        title = f"From {each.layer}, begun with {each.start.replace('_', ' ')}: {clips.names[each.clip]}"
        run.audio(f"inversion-{each.clip}-{each.layer}-{each.start}", each.sound.numpy(), clips.rate, title=title)
    originals = [
        figures.Picture("clip", f"{clips.classes[int(clips.labels[place])]}", _mels(mel, sounds[place]))
        for place in range(len(clips))
    ]
    pictures = [
        figures.Picture(
            each.layer, f"{network.classes[each.predicted]}, error {each.mel_error:.2f}", _mels(mel, each.sound)
        )
        for each in inverted
        if each.start == start
    ]
    run.figure(
        "inversions", figures.sounds(originals + pictures, mel), title=f"Clips out of layers, begun with {start}"
    )
    return rows


def metrics_of_sonification(
    sonifications: Sequence[Sonification], features: Sequence[Feature], name: str
) -> dict[str, float]:
    """NaN where nothing could be optimised."""
    ranked = [each.rank == 1 for each in sonifications if each.rank is not None]
    margins = [each.final - float(each.drawn.mean()) for each in sonifications if len(each.drawn)]
    kept = [each.kept for each in sonifications if each.kept is not None]
    return {
        f"selective_{name}": sum(ranked) / len(ranked) if ranked else float("nan"),
        f"gain_{name}": statistics.fmean(each.final - each.start for each in sonifications)
        if sonifications
        else float("nan"),
        f"margin_{name}": statistics.fmean(margins) if margins else float("nan"),
        f"kept_{name}": statistics.median(kept) if kept else float("nan"),
        f"dead_{name}": float(sum(each.dead for each in features)),
    }


def metrics_of_inversions(rows: Sequence[Mapping[str, Any]], start: str, network: SoundNetwork) -> dict[str, float]:
    """Of inversions from one start, of the layers whose cells did not fail."""
    metrics = {}
    rows = [row for row in rows if row["start"] == start]
    known = all(row["class"] in network.classes for row in rows)
    for layer in dict.fromkeys(row["layer"] for row in rows):
        these = [row for row in rows if row["layer"] == layer]
        metrics[f"inversion_error_{layer}"] = statistics.fmean(row["mel_error"] for row in these)
        if known:
            metrics[f"recognised_{layer}"] = statistics.fmean(row["predicted_class"] == row["class"] for row in these)
    return metrics


def warnings_of(
    sonifications: Mapping[str, Sequence[Sonification]], fields: Mapping[str, Inside], accuracy: float | None
) -> list[str]:
    """What a reader has to know first. fields: what the frames of each layer see."""
    warnings = []
    if accuracy is not None and accuracy < 0.9:
        warnings.append(f"the network recognises {accuracy:.0%} of the clips to test: it may have learnt little")
    if narrow := [layer for layer, each in fields.items() if not each.whole and each.last - each.first > 1]:
        warnings.append(
            f"a frame of {', '.join(narrow)} sees more than a clip is long: the middle third of its frames counts"
        )
    for name, each in sonifications.items():
        lost = [one for one in each if one.gained > 1 and one.final - one.start < 0.5 * one.gained]
        if len(lost) > len(each) / 2:
            warnings.append(f"{name}: in most sounds less than half is left of what optimisation gained")
    return warnings


def _row(sonification: Sonification, known: Responses, clips: SoundSet, network: SoundNetwork) -> dict[str, Any]:
    nearest, cosine = nearest_clip(sonification.activations, known)
    label = int(clips.labels[nearest])
    return {
        "layer": sonification.feature.layer,
        "number": sonification.feature.number,
        "name": sonification.feature.name,
        "copy": sonification.copy + 1,
        "state": "made audible",
        "start": sonification.start,
        "optimised": sonification.optimised,
        "final": sonification.final,
        "rank": sonification.rank,
        "of": sonification.rivals,
        **beside_drawn(sonification),
        "nearest_clip": clips.names[nearest],
        "nearest_class": clips.classes[label],
        "cosine": cosine,
        "predicted_class": network.classes[sonification.predicted],
        "probability": sonification.probability,
    }


def beside_drawn(sonification: Sonification) -> dict[str, Any]:
    """What the sound excites random features of its layer by: the mean with its 95 % interval, and its place."""
    count = len(sonification.drawn)
    low, high = mean_interval(sonification.drawn.tolist())
    return {
        "random": count,
        "random_mean": float(sonification.drawn.mean()) if count else None,
        "random_low": low if count > 1 else None,
        "random_high": high if count > 1 else None,
        "random_place": 1 + int((sonification.drawn > sonification.final).sum()) if count else None,
    }


def _dead_row(feature: Feature) -> dict[str, Any]:
    """What is not known of it is left out."""
    return {
        "layer": feature.layer,
        "number": feature.number,
        "name": feature.name,
        "copy": 1,
        "state": "dead: no clip excites it",
    }


def nearest_clip(activations: Tensor, known: Responses) -> tuple[int, float]:
    """The clip that a layer answers to most alike, and the cosine between the two answers. activations: (channels,)."""
    cosines = torch.nn.functional.cosine_similarity(known.standardised, activations[None], dim=1)
    best = int(cosines.argmax())
    return best, float(cosines[best])


def _caption(sonification: Sonification) -> str:
    place = "" if sonification.rank is None else f", rank {sonification.rank}"
    return f"{sonification.feature.name}: {sonification.final:.2f}{place}"


def _mels(mel: LogMel, sound: Tensor) -> np.ndarray:
    """(bands, frames)."""
    with torch.no_grad():
        values: np.ndarray = mel(sound[None])[0].numpy()
    return values
