"""What a trial costs, before it is done: passes of detectors, and seconds of a core here."""

import torch

from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection.base import Detector, frozen
from jobs.common.detection.detector_params import DetectorParams, PretrainedDetector, TrainedDetector
from jobs.common.detection.detectors import PRETRAINED
from jobs.common.estimation import least_seconds
from jobs.common.imports import resolve
from jobs.invisibility_cloak.defences.victims import asked, defended_names
from jobs.invisibility_cloak.params import Params
from service.errors import AssayError
from service.run import Estimate

FORWARD = 1 / 3  # of the cost of a forward and a backward pass
IMAGES = 2  # that are measured together


def estimate(params: Params) -> Estimate:
    """Passes of all detectors. Without seconds where a detector or the data are not there yet."""
    rows = 1 + len(params.controls.names) + len(params.patches)
    searches = {name: params.search_of(name) for name in params.patches}
    steps = float(sum(each.iterations for each in searches.values()))
    details: dict[str, float | str] = {
        "patches": float(len(params.patches)),
        "gradient steps on patches": steps,
        "cells of the matrix": float(rows * len(params.victims) * (1 + len(params.evaluation.data))),
    }
    pieces = max(len(params.patches), rows * len(params.victims))
    try:
        train, test = params.data.load_splits()
        seconds = {name: _pass_seconds(section, train) for name, section in params.detectors.items()}
    except AssayError as error:
        return Estimate(None, pieces=pieces, details={**details, "seconds": f"unknown: {error}"})
    passes = {name: 0.0 for name in params.detectors}
    # of each victim its detector, and how often that is asked about an image
    asking = {name: (name, 1) for name in params.detectors}
    asking |= {
        victim: (name, asked(params.defences, defence))
        for victim, name, defence in defended_names(params.defences, params.detectors)
    }
    for name, section in params.detectors.items():
        if isinstance(section, TrainedDetector):
            passes[name] += section.training.updates * section.training.batch
        passes[name] += FORWARD * params.controls.levels**3 * params.controls.images
        if params.defences is not None and (masking := params.defences.masking) is not None:
            passes[name] += masking.patches * masking.iterations * min(params.search.batch, len(train))
    for victim, (name, often) in asking.items():
        passes[name] += FORWARD * often * rows * len(test) * (1 + len(params.evaluation.data))
        if params.curves is not None and (own := sum(victim in params.against(patch) for patch in params.patches)):
            images = min(len(test), params.curves.images or len(test))
            passes[name] += FORWARD * often * (own + 1) * len(params.curves.points) * images
    for patch, search in searches.items():
        for victim in params.against(patch):
            name, often = asking[victim]
            passes[name] += often * search.iterations * min(search.batch, len(train))
    details |= {f"passes of {name}": float(round(count)) for name, count in passes.items()}
    known = [count * cost for name, count in passes.items() if (cost := seconds[name]) is not None]
    return Estimate(sum(known) if len(known) == len(passes) else None, pieces=pieces, details=details)


def _pass_seconds(section: DetectorParams, data: BoxSet) -> float | None:
    """Of a forward and a backward pass of one image through a detector; None if it is in the store, which is not here.

    InputError if it is not there.
    """
    detector: Detector
    match section:
        case TrainedDetector():
            detector = section.build(data, 0)
        case PretrainedDetector():
            detector = resolve(section.name, PRETRAINED, "detector")()
        case _:
            return None
    images = torch.rand(IMAGES, 3, data.side, data.side)
    frozen(detector)

    def passes() -> None:
        at = images.clone().requires_grad_()
        torch.autograd.grad(detector.priors(at).logits(0).sum(), [at])

    return least_seconds(passes, 2) / IMAGES
