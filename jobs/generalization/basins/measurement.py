"""The basin around the network of a run: its rays and its chains as cells on all workers there are.

The seed of a ray depends on that of the run and on the number of the ray alone, so that rays of the same number are the
same random numbers for all networks of an architecture.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jobs.common.curvature.hessian import Hessian
from jobs.common.mean_loss.losses import cross_entropy
from jobs.common.mean_loss.samples import Samples, check_size, drawn, normalised
from jobs.common.models.weights import tensors
from jobs.common.passes import outputs
from jobs.generalization.basins.basin import Basin, Measure, Prior
from jobs.generalization.basins.basin_params import BasinParams
from jobs.generalization.basins.learning_coefficient import Chains, LearningCoefficient, learning_coefficient, sample
from jobs.generalization.basins.preconditioner import hessian_diagonal, spread, squared_gradients
from jobs.generalization.basins.radius import radii, refused_cut
from jobs.generalization.basins.rays import Convention, filters_of, rays
from jobs.generalization.basins.stacked_loss import StackedLoss
from jobs.generalization.networks import Measured
from jobs.generalization.sets import Sets
from service.errors import InputError, RunFailedError, within
from service.run import Run, reserved_device

SHOWN = 1024  # images at a time for the network's own predictions on a CPU


def divergence(logits: Tensor, own: Tensor) -> Tensor:
    """KL(own || moved) of predictions, in nats: (batch,). logits, and own as log probabilities: (batch, classes)."""
    return (own.exp() * (own - logits.log_softmax(1))).sum(1)


@dataclass(frozen=True)
class Subject:
    """What all cells share."""

    name: str
    network: nn.Module
    samples: Samples
    """as the network takes them"""
    params: BasinParams
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    """Adam's second moments by the names of the weights; empty: nobody has them"""
    spreads: Mapping[Convention, Tensor] = field(default_factory=dict)
    """of the preconditioned conventions, float64 (n,)"""

    @cached_property
    def loss(self) -> StackedLoss:
        """The mean cross entropy, on the device of this worker. Made once for each."""
        device = reserved_device()
        images, labels = self.samples.images.to(device), self.samples.labels.to(device)
        return StackedLoss(self.network.to(device), images, labels, cross_entropy)

    @cached_property
    def quantity(self) -> StackedLoss:
        """What is cut."""
        if self.params.quantity == "loss":
            return self.loss
        network, images = self.loss.network, self.samples.images.to(reserved_device())
        own = outputs(network, images, lambda logits: logits.log_softmax(1), on_cpu=SHOWN)
        return StackedLoss(network, images, own.to(images.device), divergence)


@dataclass(frozen=True)
class Measurement:
    """What is known of the basin around a network."""

    basins: Sequence[Basin]
    coefficient: LearningCoefficient | None
    """none if it is not asked for, or if its cell failed"""
    chains: Chains | None


def chosen_images(params: BasinParams, sets: Sets, run: Run) -> Tensor:
    """Which training images the loss is the mean over. FieldError if there are fewer than asked for, or only one."""
    with within("basins"):
        chosen = drawn(sets.training, params.images, run.seed_for("basin images"))
    if len(chosen) < 2:
        raise InputError("a basin needs two training images or more; there is one")
    check_size(sets.training, len(chosen))
    return chosen


def basin_of(params: BasinParams, measured: Measured, sets: Sets, chosen: Tensor, run: Run) -> Measurement:
    """The basin around the network of a run, over chosen training images."""
    network, samples = normalised(measured.network, sets.training, chosen)
    return measure(Subject(measured.name, network, samples, params, measured.second_moments), run)


def measure(subject: Subject, run: Run) -> Measurement:
    """Measure it on all workers.

    A cut that is not above what the network has at its own weights is left out with a warning; FieldError if none is
    left. RunFailedError if there is no ray, all their cells having failed.
    """
    (centre,) = run.map(centre_of, [None], shared=subject, name="basin_centre")
    if centre is None:
        raise RunFailedError(f"the loss of {subject.name} at its own weights could not be computed: it has no basin")
    cuts = _cuts(subject, centre, run)
    spreads = _spreads(subject, run)
    basins = _basins(replace(subject, spreads=spreads), cuts, centre, run)
    params = subject.params.learning_coefficient
    if params is None:
        return Measurement(basins, None, None)
    (draws,) = run.map(chains_of, [{"seed": run.seed_for("langevin")}], shared=subject, name="langevin")
    if draws is None:
        return Measurement(basins, None, None)
    chains = Chains(draws["excess"], draws["distance"])
    return Measurement(basins, learning_coefficient(chains, len(subject.samples.labels), params.burn_in), chains)


def centre_of(cell: None, subject: Subject) -> float:
    """A cell: what is cut, at the network itself."""
    return float(subject.quantity(subject.quantity.centre[None])[0])


def spread_of(cell: dict[str, Any], subject: Subject) -> Tensor:
    """A cell: the diagonal of a preconditioned convention, float64 (n,)."""
    loss, params, seed = subject.loss, subject.params.preconditioner, cell["seed"]
    if cell["convention"] == "hessian":
        device = loss.centre.device
        hessian = Hessian(loss.network, subject.samples.images.to(device), subject.samples.labels.to(device))
        curvature = hessian_diagonal(hessian, loss.layout, params.probes, seed)
    elif subject.moments:
        curvature = loss.layout.embed(subject.moments)
    else:
        curvature = squared_gradients(loss, params.batch, params.gradients, seed)
    return spread(curvature, filters_of(subject.network), params.damping)


def radii_of(cell: dict[str, Any], subject: Subject) -> dict[str, Tensor]:
    """A cell: rays of a convention, by their seeds. cuts: where what is cut ends."""
    loss, centre = subject.quantity, subject.quantity.centre[None]
    convention: Convention = cell["convention"]
    spread = subject.spreads.get(convention)
    drawn = rays(filters_of(subject.network), centre[0], convention, spread, cell["seeds"], subject.params.cap)

    def along(numbers: Tensor, distances: Tensor) -> Tensor:
        return loss.along(centre, drawn.directions, numbers, distances)

    measured = radii(along, drawn.caps, cell["cuts"], subject.params.scan)
    return {
        "radius": measured.radius,
        "censored": measured.censored,
        "crossings": measured.crossings,
        "not_finite": measured.not_finite,
        "lengths": drawn.lengths,
        "slopes": drawn.slopes,
    }


def chains_of(cell: dict[str, int], subject: Subject) -> dict[str, Any]:
    """A cell: the chains of Langevin dynamics around the network, which move all its parameters."""
    params, loss = subject.params.learning_coefficient, subject.loss
    assert params is not None
    ones = {name: torch.ones_like(each) for name, each in loss.network.named_parameters()}
    moves = loss.layout.embed(ones).bool()
    chains = sample(loss.gradients, loss.centre, moves, len(loss), params, cell["seed"])
    return {"excess": chains.excess, "distance": chains.distance}


def _cuts(subject: Subject, centre: float, run: Run) -> dict[float, float]:
    """Where what is cut ends, by the cut of the spec."""
    offset = centre if subject.params.cuts_from == "centre" else 0.0
    cuts = {cut: cut + offset for cut in subject.params.cuts}
    refusals = {cut: refusal for cut, level in cuts.items() if (refusal := refused_cut(level, centre, subject.name))}
    if len(refusals) == len(cuts):
        raise refusals[subject.params.cuts[0]]
    for refusal in refusals.values():
        run.warn(f"{refusal.message}: this cut is left out")
    return {cut: level for cut, level in cuts.items() if cut not in refusals}


def _spreads(subject: Subject, run: Run) -> dict[Convention, Tensor]:
    """The diagonals of the preconditioned conventions. RunFailedError if a cell failed."""
    conventions = [each for each in subject.params.directions if each in ("adam", "hessian")]
    cells = [{"convention": each, "seed": run.seed_for("preconditioner", each)} for each in conventions]
    spreads = run.map(spread_of, cells, shared=subject, name="preconditioner")
    if any(each is None for each in spreads):
        raise RunFailedError("a preconditioner could not be computed, without which there are no rays")
    return dict(zip(conventions, spreads, strict=True))


def _basins(subject: Subject, cuts: Mapping[float, float], centre: float, run: Run) -> list[Basin]:
    """A basin for each convention and cut."""
    params, filters = subject.params, filters_of(subject.network)
    if filters.zero:
        run.warn(f"{filters.zero} filters of {subject.name} are zero, have no norm to move by, and are left out")
    seeds = [run.seed_for("ray", number) for number in range(params.rays)]
    parts = [seeds[first : first + params.rays_per_cell] for first in range(0, len(seeds), params.rays_per_cell)]
    cells = [
        {"convention": convention, "cuts": list(cuts.values()), "seeds": part}
        for convention in params.directions
        for part in parts
    ]
    results = run.map(radii_of, cells, shared=subject, name="rays")
    basins = []
    for position, convention in enumerate(params.directions):
        own = results[position * len(parts) : (position + 1) * len(parts)]
        if not (there := [each for each in own if each is not None]):
            raise RunFailedError(f"no ray of the convention {convention} could be measured")
        measured = {name: torch.cat([each[name] for each in there], dim=-1).numpy() for name in there[0]}
        for row, cut in enumerate(cuts):
            basins.append(
                Basin(
                    measure=Measure(convention, params.quantity, cut, params.cuts_from, params.cap, filters.n),
                    filters=filters.count,
                    log_scale=filters.log_scale,
                    centre=centre,
                    radius=measured["radius"][row],
                    censored=measured["censored"][row],
                    crossings=measured["crossings"][row],
                    not_finite=measured["not_finite"],
                    prior=_prior(subject, convention, measured),
                    seed=run.seed_for("bootstrap"),
                )
            )
    return basins


def _prior(subject: Subject, convention: Convention, measured: Mapping[str, np.ndarray]) -> Prior | None:
    """What the mass of a basin depends on besides its radii, for a convention that has one."""
    if subject.params.prior is None or convention == "filter":
        return None
    filters = filters_of(subject.network)
    weights = torch.cat([each.reshape(-1) for each in tensors(subject.network).values()]).double()[filters.where]
    square = float(weights.square().sum())
    deviation = subject.params.prior.deviation or math.sqrt(square / filters.n)
    return Prior(deviation, square, measured["lengths"], measured["slopes"])
