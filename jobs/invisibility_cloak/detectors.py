"""The detectors of a run: those that are trained here, one after another, and those that are there."""

from collections.abc import Mapping

from torch import Tensor

from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection import detector_params
from jobs.common.detection.base import Detector, frozen
from jobs.common.detection.cards import detector_card
from jobs.common.detection.detector_params import TrainedDetector
from jobs.common.detection.training import train
from jobs.invisibility_cloak.params import Params
from jobs.invisibility_cloak.patch.objectives import check_objective
from service.errors import unknown, within
from service.run import Run


def detectors_of(params: Params, data: BoxSet, image: Tensor, run: Run) -> dict[str, Detector]:
    """All detectors, in evaluation mode and without gradients of their weights, on the CPU.

    data: what they learn from. image: (1, 3, side, side), of the data. InputError, before anything is trained, if a
    detector or a class is not there, or if a detector cannot be attacked as is asked.
    """
    detectors: dict[str, Detector] = {}
    for name, section in params.detectors.items():
        if isinstance(section, TrainedDetector):
            with within(f"detectors.{name}"):
                detectors[name] = frozen(section.build(data, 0))
        else:
            detectors[name] = detector_params.load(section, run)
        if params.hidden not in detectors[name].classes:
            raise unknown(f"class of detector {name}", params.hidden, detectors[name].classes)
    for patch in params.patches:
        attacked = [detectors[name] for name in params.against(patch) if name in detectors]
        check_objective(params.search_of(patch).objective, attacked, image)
    for name, section in params.detectors.items():
        if isinstance(section, TrainedDetector):
            detectors[name] = frozen(run.reserved(trained, params, name))
    for name, detector in detectors.items():
        if detector.substitute is not None:
            run.warn(f"{name} has no objectness: what is attacked in its place is {detector.substitute}")
    return detectors


def trained(run: Run, params: Params, name: str) -> Detector:
    """Train one detector, in a phase of its own. Goes on from its checkpoint."""
    section = params.detectors[name]
    assert isinstance(section, TrainedDetector)
    data = params.data.load("train")
    detector = section.build(data, run.seed_for("weights", name)).to(run.device)
    train(detector, data, section.training, run, name=name, first_step=run.step)
    return detector.cpu()


def save_detectors(
    params: Params,
    detectors: Mapping[str, Detector],
    data: BoxSet,
    metrics: Mapping[str, Mapping[str, float]],
    run: Run,
) -> None:
    """Put the detectors that were trained here into the store. metrics: of each, on images without a patch."""
    for name, section in params.detectors.items():
        if isinstance(section, TrainedDetector):
            card = detector_card(
                "invisibility_cloak",
                detectors[name],
                section.architecture,
                section.arguments(data),
                metrics=metrics[name],
                description=f"{data.name} by {section.name.rpartition(':')[2]}",
            )
            run.save_model(params.detector_model(name), detectors[name], card)
