"""Linear probes: what can be read out of the answers of a layer, averaged over time, by ridge regression.

Source: Alain & Bengio 2017, "Understanding Intermediate Layers Using Linear Classifier Probes".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.audio.pitch import fundamental
from jobs.common.data.sounds.base import SoundSet
from jobs.sonification.params import ProbeParams
from jobs.sonification.responses import Responses
from service.errors import unknown
from service.run import Run

CLASS, FUNDAMENTAL = "class", "fundamental"


@dataclass(frozen=True)
class Target:
    """What is to be read out: of each clip to train and to test."""

    name: str
    numeric: bool
    train: np.ndarray
    test: np.ndarray
    """float64, or text; NaN where it is not known"""


def check(params: ProbeParams, clips: SoundSet) -> None:
    """UnknownNameError names a target that the data do not have."""
    for name in params.targets:
        if name not in _known(clips):
            raise unknown("target of a probe", name, _known(clips))


def _known(clips: SoundSet) -> list[str]:
    return [CLASS, FUNDAMENTAL, *clips.factors]


def targets_of(run: Run, params: ProbeParams, train: SoundSet, test: SoundSet) -> list[Target]:
    """UnknownNameError names one that the data do not have."""
    check(params, train)
    names = params.targets or [name for name in _known(train) if _varies(train, name)]
    targets = []
    for name in names:
        first, second = _values(train, name), _values(test, name)
        targets.append(Target(name, np.issubdtype(first.dtype, np.floating), first, second))
    return targets


def _varies(clips: SoundSet, name: str) -> bool:
    return name in (CLASS, FUNDAMENTAL) or len(set(clips.factors[name])) > 1


def _values(clips: SoundSet, name: str) -> np.ndarray:
    if name == CLASS:
        return np.array([clips.classes[label] for label in clips.labels.tolist()])
    if name == FUNDAMENTAL:
        return np.array([_octaves(sound, clips.rate) for sound in clips.sounds(torch.arange(len(clips)))])
    return np.array(clips.factors[name])


def _octaves(sound: Tensor, rate: int) -> float:
    """log2 of the fundamental frequency in hertz; NaN if there is none."""
    hertz = fundamental(sound, rate)
    return math.nan if hertz is None else math.log2(hertz)


def probe(
    params: ProbeParams,
    targets: Sequence[Target],
    on_train: Mapping[str, Responses],
    on_test: Mapping[str, Responses],
    run: Run,
) -> list[dict[str, Any]]:
    """A row for each layer and target: R2 of a number, accuracy of a class, on the clips to test."""
    cells: list[dict[str, Any]] = [
        {"layer": layer, "target": place} for layer in on_train for place in range(len(targets))
    ]
    means = {
        layer: (on_train[layer].standardised, (on_test[layer].means - known.mean) / known.spread)
        for layer, known in on_train.items()
    }
    results = run.map(fitted, cells, shared=(params.penalties, list(targets), means), name="probes")
    return [
        {
            "layer": cell["layer"],
            "target": targets[cell["target"]].name,
            "measure": "R2" if targets[cell["target"]].numeric else "accuracy",
            **result,
        }
        for cell, result in zip(cells, results, strict=True)
        if result is not None
    ]


def fitted(cell: dict[str, Any], shared: Any) -> dict[str, float]:
    """Fit one probe: its score on the clips to test, what guessing scores, and the penalty.

    The penalty is chosen on the clips to train: of those given, the one with the least squared error of each clip by
    the probe of all others.
    """
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV  # takes a second to load

    penalties, targets, means = shared
    target: Target = targets[cell["target"]]
    train, test = (each.double().numpy() for each in means[cell["layer"]])
    if target.numeric:
        known, tested = ~np.isnan(target.train), ~np.isnan(target.test)
        if known.sum() < 2 or tested.sum() < 2:
            return {"score": math.nan, "chance": 0.0, "penalty": math.nan}
        model = RidgeCV(list(penalties)).fit(train[known], target.train[known])
        score, chance = model.score(test[tested], target.test[tested]), 0.0
    else:
        model = RidgeClassifierCV(list(penalties)).fit(train, target.train)
        names, counts = np.unique(target.train, return_counts=True)
        score, chance = model.score(test, target.test), float((target.test == names[counts.argmax()]).mean())
    return {"score": float(score), "chance": chance, "penalty": float(model.alpha_)}
