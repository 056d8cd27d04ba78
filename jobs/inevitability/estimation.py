"""What a trial costs, before it is done: trainings, cells of attacks, passes, seconds on a core here."""

from dataclasses import dataclass

import torch

from jobs.common.estimation import (
    TRAINING,
    Passes,
    SetSize,
    measured_once,
    multiply_adds,
    multiply_adds_of,
    size_of,
    training_seconds,
    training_seconds_of,
)
from jobs.common.robustness.outcomes import searches
from jobs.common.robustness.slices import spans
from jobs.inevitability.ceilings.concentration import search_cells
from jobs.inevitability.params import Params
from jobs.inevitability.spheres.nearest import STEP_UNITS
from jobs.inevitability.spheres.networks import build
from jobs.inevitability.spheres.sphere_params import SpheresParams
from jobs.inevitability.susceptibility import epsilons_at
from service.errors import InputError
from service.run import Estimate


@dataclass(frozen=True)
class Work:
    """Of one network at one resolution, for one image of it: passes of training and of attacks at most."""

    forward: float
    backward: float


def estimate(params: Params) -> Estimate:
    """Training and curves. Passes of attacks are those for images that withstand everything, which is the most.

    The time of networks that are not trained here is not known.
    """
    details: dict[str, float | str] = {"trainings": len(params.trained) * len(params.resolutions)}
    try:
        size = size_of(params.data)
    except InputError as error:
        return Estimate(details={**details, "data": f"unknown: {error.message}"})
    searches_made = {
        (name, kind, resolution): _searches(params, resolution) for name, kind, resolution in _variants(params)
    }
    cells = sum(searches_made.values()) * len(spans(size.test, params.slice)) if params.curves is not None else 0
    details |= {"images": size.test, "cells": cells}
    if params.bounds is not None:
        details["estimates of densities"] = size.classes * len(params.bounds.densities)
    if params.concentration is not None:
        details["searches for regions"] = len(search_cells(params.concentration, params.epsilons))
    seconds, macs = 0.0, 0.0
    for each in params.trained.values():
        for resolution in params.resolutions:
            shape = (size.shape[0], size.shape[1] * resolution, size.shape[2] * resolution)
            network = each.classifier_at(resolution), size.classes, shape
            passes = each.training.updates * each.training.batch * each.method.passes
            work = _attack_work(params, size, resolution)
            if resolution == 1 and params.averaged:
                for larger in params.resolutions[1:]:
                    averaged = _attack_work(params, size, larger)
                    work = Work(work.forward + averaged.forward, work.backward + averaged.backward)
            units = TRAINING * passes + size.test * (work.forward + 2 * work.backward)  # of a forward pass
            units += _generated_units(params, size) if resolution == 1 else 0
            seconds += units * training_seconds_of(*network) / TRAINING
            macs += float(units * multiply_adds_of(*network))
    if params.generated is not None:
        details["generated images"] = params.generated.images
        made = len(searches(params.attacks_of("L2"), epsilons_at(params, "L2", 1)))
        cells += len(params.networks) * made * len(spans(params.generated.images, params.slice))
    if params.spheres is not None:
        cells += len(params.spheres.dimensions) * len(params.spheres.seeds)
        details["networks for spheres"] = len(params.spheres.dimensions) * len(params.spheres.seeds)
        sphere_seconds, sphere_macs = _sphere_work(params.spheres)
        seconds, macs = seconds + sphere_seconds, macs + sphere_macs
    known = len(params.trained) == len(params.networks) and seconds > 0
    if len(params.trained) < len(params.networks):
        details["networks that are there"] = "their time is not known"
    if params.bounds is not None or params.concentration is not None:
        details["bounds and concentration"] = "their time is not counted"
    return Estimate(
        core_seconds=seconds if known else None,
        multiply_adds=macs if known else None,
        pieces=max(cells, 1),
        details=details,
    )


def _sphere_work(spheres: SpheresParams) -> tuple[float, float]:
    """Seconds on a core and multiply-adds: training, counting errors on both spheres, searches for the nearest ones."""
    units = TRAINING * spheres.updates * spheres.batch + 2 * spheres.samples
    units += 2 * spheres.attacked * spheres.steps * STEP_UNITS
    seconds = macs = 0.0
    for n in spheres.dimensions:
        cost = _sphere_passes(n, spheres.width, spheres.layers, spheres.batch)
        seconds += len(spheres.seeds) * units * cost.training / TRAINING
        macs += float(len(spheres.seeds) * units * cost.forward)
    return seconds, macs


@measured_once
def _sphere_passes(n: int, width: int, layers: int, batch: int) -> Passes:
    """Of one of `batch` points."""
    network, point = build(n, width, layers, 0), torch.rand(1, n)
    return Passes(multiply_adds(network, point), training_seconds(network, point, batch))


def _generated_units(params: Params, size: SetSize) -> float:
    """Forward passes of one network for generated images, those of the generator left out."""
    if params.generated is None:
        return 0.0
    work = _attack_work(params.model_copy(update={"epsilons": {"L2": params.epsilons["L2"]}}), size, 1)
    return params.generated.samples + params.generated.images * (work.forward + 2 * work.backward)


def _variants(params: Params) -> list[tuple[str, str, int]]:
    """Name, kind and resolution of everything that has a curve."""
    variants = []
    for name in params.networks:
        trained = name in params.trained
        variants += [(name, "itself", each) for each in (params.resolutions if trained else (1,))]
        variants += [(name, "averaged", each) for each in params.resolutions if params.averaged and each > 1]
    return variants


def _searches(params: Params, resolution: int) -> int:
    return sum(
        len(searches(params.attacks_of(norm), epsilons_at(params, norm, resolution))) for norm in params.epsilons
    )


def _attack_work(params: Params, size: SetSize, resolution: int) -> Work:
    """Passes for an image that withstands all attacks in all norms."""
    forward, backward = 1.0, 0.0
    for norm in params.epsilons:
        attacks = params.attacks_of(norm)
        for name, _ in searches(attacks, epsilons_at(params, norm, resolution)):
            cost = attacks[name].cost(norm, size.classes, targeted=False)
            forward, backward = forward + cost.forward, backward + cost.backward
    return Work(forward, backward)
