"""The minefield of a good network: bad minima from every state along its training, what they score, and the map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.data.images.base import ImageSet
from jobs.common.models.ensemble import Ensemble
from jobs.common.passes import outputs
from jobs.generalization.minefield.mapping import projected, weight_rows
from jobs.generalization.minefield.minefield_params import MinefieldParams
from jobs.generalization.minefield.search import Search, trained_together
from jobs.generalization.networks import Measured
from jobs.generalization.sets import Sets
from service.errors import RunFailedError
from service.run import Run, reserved_device

SCORED = 1024  # images at once on a CPU, by networks that are scored together


@dataclass(frozen=True)
class Minefield:
    """States of a good training, and what training with poison made of each."""

    epochs: tuple[int, ...]
    """after which the states were kept"""
    good: tuple[dict[str, float], ...]
    """accuracies of each state, by the names of the sets"""
    bad: tuple[dict[str, float], ...]
    """of what it was made into; a cell that failed has none"""
    losses: tuple[float, ...]
    """objectives that were reached"""
    distances: tuple[float, ...]
    """from each state to what it was made into, in weights without biases"""
    places: np.ndarray
    """float64 (states + bad minima, 2) on the map"""
    explained: float
    """share of the variance of all weights that the principal axes keep"""

    def rows(self) -> list[dict[str, Any]]:
        """A row for each bad minimum beside the state that it began at."""
        count = len(self.epochs)
        return [
            {
                "epoch": epoch,
                **{f"start_{name}": share for name, share in good.items()},
                **bad,
                "fitted": bad["training"] == 1,
                "objective": loss,
                "distance": distance,
                "start_x": float(self.places[place, 0]),
                "start_y": float(self.places[place, 1]),
                "x": float(self.places[count + place, 0]),
                "y": float(self.places[count + place, 1]),
            }
            for place, (epoch, good, bad, loss, distance) in enumerate(
                zip(self.epochs, self.good, self.bad, self.losses, self.distances, strict=True)
            )
        ]


def minefield(params: MinefieldParams, measured: Measured, sets: Sets, run: Run) -> Minefield:
    """Train a network with poison from every state, together in cells; map the states and what they became.

    RunFailedError if every cell failed; those of a cell that failed are left out.
    """
    assert sets.poison is not None
    images, poison = _all(sets.training), _all(sets.poison)
    search = Search(measured.network, measured.path, images, sets.training.labels, poison, sets.poison.labels, params)
    count = len(measured.path)
    cells = [[first, min(first + params.together, count)] for first in range(0, count, params.together)]
    results = run.map(trained_together, cells, shared=search, name="minefield")
    made = [
        (first + place, each)
        for (first, _), some in zip(cells, results, strict=True)
        if some
        for place, each in enumerate(some)
    ]
    if not made:
        raise RunFailedError("no bad minimum could be computed")
    starts = [measured.path[number] for number, _ in made]
    ends = [each["weights"] for _, each in made]
    together = [{name: state[name].float() for name in ends[0]} for state in [*starts, *ends]]
    scored = Scored(measured.network, together, {name: (_all(each), each.labels) for name, each in sets.named.items()})
    parts = [[first, min(first + params.together, len(together))] for first in range(0, len(together), params.together)]
    accuracies = [
        each for some in run.map(accuracies_of, parts, shared=scored, name="minefield_scores") for each in some or []
    ]
    if len(accuracies) < len(together):
        raise RunFailedError("the accuracies of some networks could not be computed")
    rows = weight_rows(together)
    places, explained = projected(rows, params.components, params.perplexity)
    return Minefield(
        epochs=tuple(measured.epochs[number] for number, _ in made),
        good=tuple(accuracies[: len(made)]),
        bad=tuple(accuracies[len(made) :]),
        losses=tuple(each["loss"] for _, each in made),
        distances=tuple(np.linalg.norm(rows[: len(made)] - rows[len(made) :], axis=1).tolist()),
        places=places,
        explained=explained,
    )


@dataclass(frozen=True)
class Scored:
    """Networks, and the images and labels of every set."""

    network: torch.nn.Module
    states: list[dict[str, Tensor]]
    sets: dict[str, tuple[Tensor, Tensor]]


def accuracies_of(cell: list[int], scored: Scored) -> list[dict[str, float]]:
    """A cell: accuracies of networks first..last-1, by the names of the sets."""
    device = reserved_device()
    ensemble = Ensemble(scored.network, scored.states[cell[0] : cell[1]]).to(device).eval()
    shares: list[dict[str, float]] = [{} for _ in range(cell[1] - cell[0])]
    for name, (images, labels) in scored.sets.items():
        classes = outputs(ensemble, images, lambda logits: logits.argmax(-1).T, on_cpu=SCORED)  # (images, networks)
        right = (classes == labels[:, None]).double().mean(0)
        for share, value in zip(shares, right.tolist(), strict=True):
            share[name] = value
    return shares


def _all(images: ImageSet) -> Tensor:
    return images.images(torch.arange(len(images)))
